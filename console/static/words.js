// Every word of the page, in Chinese and English. Owns wording and which language is spoken now.

const WORDS = {
  title: ["城市运行态势一张图", "The One Map of the City"], live: ["实时", "Live"], sensorsOnline: ["传感在线率", "Sensors online"], videoOnline: ["视频在线率", "Video online"],
  rate: ["消息/秒", "Messages/s"], latency: ["端到端延迟", "End to end"], alerts: ["活动告警", "Active alerts"], unacked: ["待确认", "To acknowledge"],
  ofTotal: ["{a} / {b}", "{a} / {b}"], oldest: ["最久 {a}", "oldest {a}"], none: ["无", "none"], red: ["红", "Red"], orange: ["橙", "Orange"], yellow: ["黄", "Yellow"],
  blue: ["蓝", "Blue"], normal: ["正常", "Normal"], offline: ["离线", "Offline"], doubtful: ["灰点:数值存疑或设备故障", "grey dot: doubtful or faulty"],
  blinking: ["待确认(闪烁)", "not yet acknowledged (blinks)"], layers: ["图层", "Layers"], legend: ["图例", "Legend"], all: ["全部", "All"], noneShown: ["全不选", "None"],
  onlyAbnormal: ["仅看异常", "Abnormal only"], districts: ["区县", "Districts"], district: ["区县", "District"], total: ["测点", "Points"], state: ["状态", "State"],
  city: ["全市", "Whole city"], inView: ["视野内", "In view"], hidePanels: ["收起面板", "Hide panels"], wholeCity: ["全市视野", "Whole city"], zoomIn: ["放大", "Zoom in"],
  zoomOut: ["缩小", "Zoom out"], mapOf: ["全市测点地图", "Map of all points"],
  mapHelp: ["方向键平移,加减号缩放,0 回到全市,N 和 P 逐个查看告警,回车打开所选测点", "Arrow keys pan, plus and minus zoom, 0 shows the whole city, N and P step through alarms, Enter opens the chosen point"],
  search: ["搜索测点名称或编号", "Search points by name or id"], connecting: ["连接中", "Connecting"], connected: ["已连接", "Connected"],
  lost: ["已断开", "Disconnected"], stale: ["数据滞后", "Feed is late"], staleBy: ["数据滞后 {a},地图为 {b} 的状态", "The feed is {a} late: the map shows {b}"],
  lostSince: ["与服务器的连接已断开 {a},正在重连;地图为 {b} 的状态", "No connection for {a}, reconnecting: the map shows {b}"], never: ["尚无数据", "no data yet"],
  dataTime: ["数据时间", "Data time"], position: ["日志位置", "Journal position"], points: ["{a} 个测点", "{a} points"], soundOn: ["声音:开", "Sound on"],
  soundOff: ["声音:静音", "Sound muted"], soundBlocked: ["声音未启用,点按启用", "Sound not enabled: press to enable"], openFor: ["持续 {a}", "open {a}"], ack: ["确认", "Ack"],
  silence: ["静默", "Silence"], ackedBy: ["{a} 已确认", "acknowledged by {a}"], mustAnswer: ["应答 {a}", "by {a}"], answerIn: ["剩 {a}", "{a} left"],
  answerLate: ["超时 {a}", "{a} overdue"], silencedUntil: ["静默至 {a}", "silenced until {a}"], escalated: ["已升级 {a} 次", "escalated {a}×"],
  open: ["未结束 {a}/{b}", "{a}/{b} open"], noAlerts: ["当前没有活动告警", "No active alerts"], noAlertsShown: ["筛选后没有告警", "No alerts match"], more: ["另有 {a} 条", "{a} more"],
  replay: ["回放", "REPLAY"], drill: ["演练", "DRILL"], view: ["查看", "view"], faults: ["设备故障", "Faults"], events: ["城市事件", "Events"], silences: ["静默中 {a} 项", "{a} silences"], bad: ["错误", "bad"], login: ["登录", "Log in"],
  logout: ["退出", "Log out"], operate: ["操作", "operate"], theme: ["切换深浅色", "Dark or light"], language: ["EN", "中"], otherLanguage: ["English", "中文"],
  rooms: ["页面", "Rooms"], roomMap: ["一张图", "Map"], roomQueries: ["一网通查", "Queries"], roomSupervision: ["一网通督", "Supervision"],
  keys: ["快捷键", "Keys"], notInReplay: ["回放中不能操作,先回到实时", "Not in a replay: go back to live first"], skip: ["跳到告警", "Skip to alerts"],
};

/** Takes words of a part that is fetched when first needed. */
export const learn = (words) => Object.assign(WORDS, words);

// What a rule or fault is called where only its name is known; a rule of another name shows as itself.
const RULES = {
  level: ["超限", "above its level"], rise: ["上涨过快", "rising"], rain: ["雨量", "rain"], noise: ["噪声", "noise"], air: ["空气质量", "air"], aqi: ["空气质量指数", "air quality index"], section: ["断面水质", "water class"], water: ["水质", "water"], dust: ["扬尘", "dust"],
  compound: ["多要素复合", "several signs at once"], areal: ["面雨量", "rain over an area"], outlook: ["水位预测", "level forecast"], dead: ["失联", "no data"], stuck: ["读数卡滞", "stuck"], outage: ["网关失联", "gateway out"], spike: ["读数尖刺", "spikes"], drift: ["读数漂移", "drift"], device: ["设备自报故障", "device reports a fault"],
};
export const ruleName = (rule) => RULES[rule]?.[at] ?? rule;

let at = 0;
export const lang = () => (at ? "en" : "zh");
export function speak(language) { at = language === "en" ? 1 : 0; document.documentElement.lang = at ? "en" : "zh-CN"; }

/** The word in the language spoken now; {a} and {b} are filled in. */
export function t(key, a, b) {
  const text = WORDS[key]?.[at] ?? key;
  return a === undefined ? text : text.replace("{a}", () => a).replace("{b}", () => b ?? "");
}

/** The text of one language of {zh, en}, or the other where it is missing. */
export const pick = (both) => (at ? both.en || both.zh : both.zh || both.en) || "";
