-- zh = "告警:逐日"
-- en = "Alerts by day"
-- group = "alerts"
-- chart = { form = "lines", x = "day", y = ["red", "orange", "yellow", "blue"] }
-- [parameters.since]
-- zh = "起"
-- en = "From"
-- type = "time"
-- default = "today-30d"
-- [parameters.district]
-- zh = "区县"
-- en = "District"
-- type = "district"
-- default = ""
-- [columns]
-- day = { zh = "日期", en = "Day" }
-- red = { zh = "红", en = "Red" }
-- orange = { zh = "橙", en = "Orange" }
-- yellow = { zh = "黄", en = "Yellow" }
-- blue = { zh = "蓝", en = "Blue" }
-- faults = { zh = "设备故障", en = "Faults" }
SELECT CAST(date_trunc('day', onset) AS DATE) AS day,
       count(*) FILTER ("class" = 'event' AND severity = 4) AS red, count(*) FILTER ("class" = 'event' AND severity = 3) AS orange,
       count(*) FILTER ("class" = 'event' AND severity = 2) AS yellow, count(*) FILTER ("class" = 'event' AND severity = 1) AS blue,
       count(*) FILTER ("class" = 'fault') AS faults
FROM alerts WHERE onset >= $since AND NOT drill AND $district IN ('', district)
GROUP BY day ORDER BY day
