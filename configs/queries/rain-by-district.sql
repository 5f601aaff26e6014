-- zh = "累计雨量:各区县"
-- en = "Rain so far, by district"
-- about_zh = "起算时间以来各雨量站之和;today+8h 为今日 08 时起(水文日)。"
-- about_en = "Sums of gauges since a moment; today+8h is the hydrological day from 08."
-- group = "flood"
-- chart = { form = "bars", x = "district", y = ["most", "mean"] }
-- [parameters.since]
-- zh = "起算时间"
-- en = "Since"
-- type = "time"
-- default = "now-3h"
-- [columns]
-- district = { zh = "区县", en = "District" }
-- most = { zh = "最大", en = "Most", unit = "mm" }
-- mean = { zh = "平均", en = "Mean", unit = "mm" }
-- at_gauge = { zh = "最大站", en = "Gauge with most" }
-- gauges = { zh = "站数", en = "Gauges" }
-- above_50 = { zh = "≥50 mm 站数", en = "Gauges ≥ 50 mm" }
SELECT district, max(mm) AS most, avg(mm) AS mean, arg_max(name, mm) AS at_gauge, count(*) AS gauges,
       count(*) FILTER (mm >= 50) AS above_50
FROM rain_accumulated($since, now() + INTERVAL 1 MINUTE)
GROUP BY district ORDER BY most DESC
