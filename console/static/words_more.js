// Words of what is opened on demand: search, hover, drawer, dialogs. Owns wording only.
import { learn, t } from "./words.js";

learn({
  nothingFound: ["没有找到“{a}”", "Nothing found for “{a}”"], results: ["{a} 条结果", "{a} results"], locate: ["定位", "Show on map"], ackWho: ["确认人", "Acknowledged by"],
  note: ["备注", "Note"], ackTitle: ["确认告警", "Acknowledge alert"], ackText: ["确认后不再向他人呼叫,直到等级升高。", "Nobody else is called until it becomes worse."],
  silenceTitle: ["静默告警", "Silence alerts"], scope: ["范围", "Scope"], scopePoint: ["该测点 {a}", "this point, {a}"], scopeKindDistrict: ["{a} 的全部 {b}", "all {b} in {a}"],
  scopeDistrict: ["{a} 的全部告警", "everything in {a}"], scopeRule: ["规则 {a}", "rule {a}"], scopeKind: ["全市的 {a}", "all {a} in the city"], until: ["到期", "Until"],
  untilNeeded: ["必须选择到期时间", "An expiry is mandatory"], why: ["原因", "Reason"], whyNeeded: ["必须填写原因", "A reason is mandatory"], hours: ["{a} 小时", "{a} h"],
  minutes: ["{a} 分钟", "{a} min"], custom: ["自定", "Other"], tooEarly: ["到期时间必须在将来", "The expiry must be in the future"], redToo: ["红色也静默", "red too"], redNeeded: ["该告警是红色:要静默它,须勾选“红色也静默”", "This alert is red: tick “red too” to silence it"],
  cancel: ["取消", "Cancel"], close: ["关闭", "Close"], send: ["确定", "Confirm"], failed: ["未成功:{a}", "Failed: {a}"], noRight: ["当前角色只能查看", "Your role may only look"],
  acked: ["已确认", "Acknowledged"], silenced: ["已静默", "Silenced"], end: ["解除", "End"], value: ["当前值", "Value"], age: ["{a} 前", "{a} ago"], typical: ["常见范围", "Typical"],
  limits: ["阈值", "Limits"], quality: ["质量", "Quality"], neighbours: ["邻近测点", "Neighbours"], source: ["来源", "Source"], kind: ["类型", "Kind"], where: ["位置", "Where"],
  interval: ["上报间隔", "Interval"], gateway: ["网关", "Gateway"], device: ["设备", "Device"], received: ["接收", "Received"], history: ["历史", "History"],
  span1h: ["1 小时", "1 h"], span24h: ["24 小时", "24 h"], span7d: ["7 天", "7 d"], span30d: ["30 天", "30 d"], csv: ["下载 CSV", "CSV"],
  noHistory: ["该时段没有数据", "No readings in this span"], pointAlerts: ["该测点的告警", "Alerts of this point"], mean: ["均值", "mean"], range: ["最低至最高", "min to max"],
  time: ["时间", "Time"], count: ["条数", "Readings"], min: ["最低", "Min"], max: ["最高", "Max"], good: ["好", "good"], notEvaluated: ["未评估", "not evaluated"],
  suspect: ["可疑", "suspect"], missing: ["缺测", "missing"], forecast: ["预测", "Forecast"], reaches: ["约 {a} 后到 {b}", "reaches {b} in about {a}"],
  stackedHere: ["此处 {a} 个测点", "{a} points here"], readingTable: ["历史数据表", "History as a table"], userName: ["用户名", "User name"], password: ["密码", "Password"],
  wrong: ["用户名或密码不对", "Wrong user name or password"], tooOften: ["尝试过多,请在 {a} 后再试", "Too many attempts: try again in {a}"],
  unreachable: ["连不上服务器", "The server cannot be reached"], keySearch: ["搜索", "Search"], keyNext: ["下一个 / 上一个告警", "Next / previous alarm"],
  keyMap: ["移到地图", "To the map"], keyPanels: ["收起或展开面板", "Panels"], keySound: ["静音", "Mute"], keyReplay: ["回放,再按回到实时", "Replay, and back to live"], keyAck: ["确认所选告警", "Acknowledge the chosen alert"],
  keyCity: ["全市视野", "Whole city"], keyRooms: ["一张图、一网通查、一网通督", "Map, queries, supervision"], keyWalk: ["下一个 / 上一个工地或查询", "Next / previous site or query"], dutySheet: ["值班一页纸(可打印)", "Duty sheet, to print (in Chinese)"],
  keyHelp: ["本帮助", "This help"], keyEsc: ["关闭", "Close"],
});

/** What went wrong, as a person should read it. */
export function failure(error) {
  if (error.status === 0) return t("unreachable");
  if (error.status === 403) return t("noRight");
  return t("failed", error.message);
}
