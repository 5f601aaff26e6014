// Words of the rooms: saved queries and supervision. Owns wording only.
import { lang, learn, t } from "./words.js";

const WORDS = {
  ask: ["查询", "Ask"], asking: ["查询中…", "Asking …"], csvFile: ["下载 CSV", "CSV"], findQuery: ["筛选查询", "Filter queries"], rows: ["{a} 行,用时 {b} 毫秒", "{a} rows in {b} ms"],
  rowsMore: ["另有 {a} 行,见 CSV", "{a} more rows: see the CSV"], noRows: ["没有符合的数据", "Nothing matches"], brokenQueries: ["有 {a} 个查询文件有误,未列出", "{a} query files are broken and left out"],
  freeSql: ["自由 SQL", "SQL of your own"], freeSqlAbout: ["一条只读语句;视图和宏见 docs/sql.md。", "One statement that only reads; docs/sql.md has the views and macros."], statement: ["语句", "Statement"], everything: ["全部", "All"],
  momentHelp: ["如 now-24h、today+8h、2026-07-01 08:00", "such as now-24h, today+8h, 2026-07-01 08:00"], wrongAnswer: ["未成功:{a}", "Failed: {a}"], chartOf: ["{a}:图", "{a}: chart"],
  flood: ["防汛", "Flood"], alertsGroup: ["告警与应答", "Alerts"], qualityGroup: ["数据质量", "Data quality"], video: ["视频", "Video"], appeals: ["诉求", "Appeals"], food: ["食品安全", "Food"], projectsGroup: ["项目与工地", "Projects"], services: ["政务服务", "Services"], other: ["其他", "Other"],
  tabProjects: ["项目与工地", "Projects"], tabSystems: ["系统与区县", "Systems, districts"], tabServices: ["诉求与食安", "Appeals, food"], asOf: ["{a} 更新", "as of {a}"], project: ["项目", "Project"], progress: ["进度", "Progress"], planned: ["计划", "planned"],
  cameras: ["摄像头", "Cameras"], camerasOnline: ["摄像头在线", "Cameras online"], dust: ["扬尘", "Dust"], noise: ["噪声", "Noise"], openFindings: ["未整改", "Open"], overdueFindings: ["超期", "Overdue"], alertsOpen: ["告警", "Alerts"],
  walked: ["已巡 {a}/{b}", "{a} of {b} walked"], walkedMark: ["已巡", "walked"], nextSite: ["下一个 (J)", "Next (J)"], previousSite: ["上一个 (K)", "Previous (K)"], onlyTrouble: ["仅看有问题的", "With problems only"], onMap: ["在地图上看 (O)", "On the map (O)"],
  walkKeys: ["J 下一个,K 上一个,O 看地图", "J next, K previous, O on the map"], siteOf: ["第 {a} / {b}", "{a} of {b}"], findings: ["检查发现", "Findings"], approvals: ["审批", "Approvals"], granted: ["已办结", "granted"], dueOn: ["期限 {a}", "due {a}"], lateBy: ["超期 {a}", "{a} overdue"],
  oldestOpen: ["最久 {a} 天", "oldest {a} days"], noSites: ["没有项目或工地。项目以 project 类事件接入,工地随扬尘、噪声设备列出。", "No projects or sites: projects come as events of type project, sites with their dust and noise devices."], plannedEnd: ["计划完工", "Planned end"], reported: ["最近上报", "Last report"], equipment: ["现场设备", "On the site"], notKnown: ["未上报", "not told"],
  sources: ["来源系统", "Source systems"], online: ["在线率", "Online"], timely: ["及时率(1 分钟内)", "Within a minute"], late: ["延迟中位", "Median lateness"], goodShare: ["合格率", "Good"], arrived: ["到报率", "Arrived"], refused: ["隔离", "Refused"], revised: ["改报", "Revised"], faultsOpen: ["故障", "Faults"],
  answered: ["应答用时", "Time to answer"], called: ["呼叫", "Called"], last24h: ["近 24 小时", "24 h"], last7d: ["近 7 天", "7 d"], last30d: ["近 30 天", "30 d"], last90d: ["近 90 天", "90 d"],
  accepted: ["受理", "Accepted"], stillOpen: ["未办结", "Open"], closedCases: ["办结", "Closed"], resolved: ["解决率", "Resolved"], satisfied: ["满意率", "Satisfied"], hoursToClose: ["办理用时", "Until closed"], category: ["类别", "Category"], byDistrict: ["按区县", "By district"], byCategory: ["按类别", "By category"],
  violationRate: ["检查违规率(逐月)", "Share of inspections with violations, by month"], inspections: ["检查", "Inspections"], violating: ["违规", "Violating"], rate: ["违规率", "Rate"], violationsFound: ["违规种类(十二个月)", "Violations of twelve months"], corrected: ["已整改", "Put right"], daysToCorrect: ["整改天数", "Days"], banquets: ["坝坝宴(逐月)", "Village banquets, by month"],
  filed: ["申报", "Filed"], checked: ["核查", "Checked"], held: ["办席", "Held"], calledOff: ["劝停取消", "Called off"], guests: ["人数", "Guests"], month: ["月份", "Month"], business: ["业态", "Business"], violation: ["种类", "Kind"], name: ["名称", "Name"], hoursUnit: ["小时", "h"],
};
// Apart from the words of the map, of which some have the same keys.
learn(Object.fromEntries(Object.entries(WORDS).map(([key, both]) => [`room.${key}`, both])));
/** The word of a room in the language spoken now. */
export const w = (key, a, b) => t(`room.${key}`, a, b);

// What sources of the demo city call things; words of others show as themselves.
const KNOWN = {
  waterlogging: ["积水内涝", "standing water"], noise: ["噪声扰民", "noise"], dust: ["工地扬尘", "dust"], traffic: ["道路交通", "traffic"], property: ["物业管理", "property"], food: ["食品安全", "food"], online_catering: ["网络餐饮", "online catering"],
  school_kitchen: ["学校食堂", "school kitchens"], restaurant: ["餐馆", "restaurants"], supplier: ["供货商", "suppliers"], window: ["窗口", "window"], online: ["网上", "online"], app: ["掌上", "app"], terminal: ["自助终端", "terminal"],
  accepted: ["已受理", "accepted"], assigned: ["已交办", "assigned"], handled: ["已处理", "handled"], closed: ["已办结", "closed"], refused: ["不予受理", "refused"], cancelled: ["已撤销", "cancelled"], rated: ["已回访", "rated"],
};
/** A word of a source as people say it. */
export const said = (word) => KNOWN[word]?.[lang() === "zh" ? 0 : 1] ?? word;
