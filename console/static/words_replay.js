// Words of the replay. Owns wording only.
import { learn } from "./words.js";

learn({
  play: ["播放", "Play"], pause: ["暂停", "Pause"], speed: ["倍速", "Speed"], replayDay: ["日期", "Day"], moment: ["回放时刻", "Moment of the replay"],
  backToLive: ["实时", "Live"], backToLiveLong: ["回到实时", "Back to live"], scrubHelp: ["左右方向键一步,上下翻页一小时,空格播放", "Arrows one step, page keys an hour, space plays"],
  noDays: ["还没有存下可以回放的日子", "No day is stored yet that could be replayed"], replayBegins: ["回放:{a}。确认与静默不可用", "Replay of {a}: acknowledging and silencing are off"],
  otherPoints: ["点位有变,回放按现在的点位继续", "The points have changed: the replay goes on with those of now"],
  liveAgain: ["已回到实时", "Live again"], liveWaits: ["现场待确认 {a}", "{a} wait in the live city"],
  dayAlerts: ["{a} 次告警", "{a} alerts"], loadingDay: ["正在读取 {a}", "Reading {a}"], earlier: ["上一步", "Step back"], later: ["下一步", "Step on"], histogram: ["每分钟新告警", "new alerts a minute"],
});
