-- zh = "应答用时:各区县"
-- en = "Time to answer, by district"
-- about_zh = "从首次呼叫到首次应答;目标五分钟。"
-- about_en = "From the first call to the first answer; five minutes are the aim."
-- group = "alerts"
-- chart = { form = "bars", x = "district", y = ["minutes_median", "minutes_p90"] }
-- [parameters.since]
-- zh = "起"
-- en = "From"
-- type = "time"
-- default = "now-30d"
-- [columns]
-- district = { zh = "区县", en = "District" }
-- called = { zh = "呼叫", en = "Called" }
-- answered = { zh = "已应答", en = "Answered" }
-- within_5 = { zh = "五分钟内", en = "Within 5 min", form = "share" }
-- minutes_median = { zh = "中位", en = "Median", unit = "min" }
-- minutes_p90 = { zh = "九成以内", en = "90 % within", unit = "min" }
-- escalated = { zh = "升级", en = "Escalated" }
SELECT district, count(*) AS called, count(answered_at) AS answered,
       count(*) FILTER (answer_s <= 300) / count(*) AS within_5,
       median(answer_s) / 60 AS minutes_median, quantile_cont(answer_s, 0.9) / 60 AS minutes_p90,
       CAST(sum(escalations) AS BIGINT) AS escalated
FROM answers($since, now()) GROUP BY district ORDER BY called DESC
