-- zh = "系统及时性:最迟的在前"
-- en = "Sources by lateness, the worst first"
-- about_zh = "延迟为每个测点最新读数的接收时间减测量时间。"
-- about_en = "Lateness is reception less measurement of each point's newest reading."
-- group = "quality"
-- chart = { form = "bars", x = "source", y = ["late_s_p95"] }
-- [parameters.most]
-- zh = "条数"
-- en = "Rows"
-- type = "integer"
-- default = 30
-- min = 1
-- max = 1000
-- [columns]
-- source = { zh = "系统", en = "Source" }
-- points = { zh = "测点数", en = "Points" }
-- late_s_median = { zh = "延迟中位", en = "Median lateness", unit = "s" }
-- late_s_p95 = { zh = "延迟 95%", en = "95 % within", unit = "s" }
-- newest = { zh = "最新读数", en = "Newest reading" }
-- revised_share = { zh = "改报占比", en = "Revised", form = "share" }
-- late_rows = { zh = "迟到条数", en = "Late readings" }
SELECT l.source, count(*) AS points, median(epoch(l.received_at - l.time)) AS late_s_median,
       quantile_cont(epoch(l.received_at - l.time), 0.95) AS late_s_p95, max(l.time) AS newest,
       any_value(s.revised_share) AS revised_share, any_value(s."rows") AS late_rows
FROM latest l LEFT JOIN late_by_source s USING (source)
GROUP BY l.source ORDER BY late_s_p95 DESC NULLS LAST LIMIT $most
