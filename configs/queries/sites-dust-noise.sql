-- zh = "工地扬尘与噪声:现在最高"
-- en = "Building sites: dust and noise now"
-- group = "projects"
-- chart = { form = "bars", x = "name", y = ["value"] }
-- [parameters.kind]
-- zh = "类型"
-- en = "Kind"
-- type = "text"
-- default = "dust_pm10"
-- choices = [
--   { value = "dust_pm10", zh = "扬尘 PM10", en = "dust, PM10" }, { value = "site_noise", zh = "工地噪声", en = "noise" },
-- ]
-- [parameters.district]
-- zh = "区县"
-- en = "District"
-- type = "district"
-- default = ""
-- [parameters.most]
-- zh = "条数"
-- en = "Rows"
-- type = "integer"
-- default = 30
-- min = 1
-- max = 500
-- [columns]
-- name = { zh = "测点", en = "Point" }
-- district = { zh = "区县", en = "District" }
-- value = { zh = "读数", en = "Value" }
-- unit = { zh = "单位", en = "Unit" }
-- above_district = { zh = "高于本区均值", en = "Above its district's mean" }
-- time = { zh = "时间", en = "Time" }
-- point_id = { zh = "编号", en = "Id" }
SELECT name, district, value, unit, value - avg(value) OVER (PARTITION BY district) AS above_district, time, point_id
FROM latest
WHERE kind = $kind AND flag IN (1, 2) AND value IS NOT NULL AND time > now() - INTERVAL 2 HOUR AND $district IN ('', district)
ORDER BY value DESC LIMIT $most
