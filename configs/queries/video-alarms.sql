-- zh = "视频告警与误报"
-- en = "Alarms over pictures"
-- group = "video"
-- chart = { form = "bars", x = "category", y = ["alarms"] }
-- [parameters.since]
-- zh = "起"
-- en = "From"
-- type = "time"
-- default = "now-30d"
-- [parameters.district]
-- zh = "区县"
-- en = "District"
-- type = "district"
-- default = ""
-- [columns]
-- category = { zh = "类别", en = "Category" }
-- alarms = { zh = "告警", en = "Alarms" }
-- waiting = { zh = "待查看", en = "Not looked at" }
-- false_share = { zh = "误报率", en = "Nothing", form = "share" }
-- minutes_to_look = { zh = "查看用时", en = "Until looked at", unit = "min" }
SELECT category, CAST(sum(alarms) AS BIGINT) AS alarms, CAST(sum(waiting) AS BIGINT) AS waiting,
       sum(dismissed) / nullif(sum(alarms - waiting), 0) AS false_share,
       sum(minutes_to_look * (alarms - waiting)) / nullif(sum(alarms - waiting), 0) AS minutes_to_look
FROM video_alarms_by($since, now()) WHERE $district IN ('', district)
GROUP BY category ORDER BY alarms DESC
