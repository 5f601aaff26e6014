-- zh = "雨量过程:逐小时"
-- en = "Course of the rain, by hour"
-- group = "flood"
-- chart = { form = "lines", x = "time", y = ["mm"], by = "district" }
-- [parameters.since]
-- zh = "起"
-- en = "From"
-- type = "time"
-- default = "now-24h"
-- [parameters.until]
-- zh = "止"
-- en = "To"
-- type = "time"
-- default = "now+1h"
-- [parameters.district]
-- zh = "区县"
-- en = "District"
-- type = "district"
-- default = ""
-- [columns]
-- time = { zh = "小时", en = "Hour" }
-- district = { zh = "区县", en = "District" }
-- mm = { zh = "平均每站", en = "Mean of gauges", unit = "mm" }
-- gauges = { zh = "站数", en = "Gauges" }
SELECT time, district, mean * good / points AS mm, points AS gauges
FROM district_hourly('rain_gauge', $since, $until)
WHERE $district IN ('', district) ORDER BY time, district
