-- zh = "现在水位:各区县最高"
-- en = "Water now: highest by district"
-- about_zh = "每个区县现在读数最高的测点。限值取该测点的黄色等级。"
-- about_en = "The point that reads highest now in each district. The limit is the point's yellow level."
-- group = "flood"
-- chart = { form = "bars", x = "district", y = ["highest"] }
-- [parameters.kind]
-- zh = "类型"
-- en = "Kind"
-- type = "text"
-- default = "waterlogging"
-- choices = [
--   { value = "waterlogging", zh = "道路积水", en = "water on the road" },
--   { value = "river_level", zh = "河道水位", en = "river level" },
--   { value = "drain_level", zh = "管网液位", en = "drain level" },
--   { value = "pump_level", zh = "泵站水位", en = "pump sump" },
-- ]
-- [columns]
-- district = { zh = "区县", en = "District" }
-- highest = { zh = "最高", en = "Highest" }
-- unit = { zh = "单位", en = "Unit" }
-- at_point = { zh = "测点", en = "Point" }
-- level_yellow = { zh = "黄色限值", en = "Yellow level" }
-- time = { zh = "时间", en = "Time" }
-- points = { zh = "测点数", en = "Points" }
SELECT l.district, max(l.value) AS highest, any_value(l.unit) AS unit, arg_max(l.name, l.value) AS at_point,
       arg_max(p.level_yellow, l.value) AS level_yellow, arg_max(l.time, l.value) AS time, count(*) AS points
FROM latest l JOIN points p USING (point)
WHERE l.kind = $kind AND l.flag IN (1, 2) AND l.value IS NOT NULL AND NOT p.retired
GROUP BY l.district ORDER BY highest DESC
