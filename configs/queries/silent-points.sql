-- zh = "失联测点:最久的在前"
-- en = "Silent points, the longest first"
-- group = "quality"
-- [parameters.minutes]
-- zh = "超过分钟"
-- en = "Longer than minutes"
-- type = "number"
-- default = 60
-- min = 1
-- max = 5000000
-- [parameters.district]
-- zh = "区县"
-- en = "District"
-- type = "district"
-- default = ""
-- [parameters.source]
-- zh = "系统"
-- en = "Source"
-- type = "source"
-- default = ""
-- [columns]
-- name = { zh = "测点", en = "Point" }
-- kind = { zh = "类型", en = "Kind" }
-- district = { zh = "区县", en = "District" }
-- source = { zh = "系统", en = "Source" }
-- last_heard = { zh = "最后读数", en = "Last heard" }
-- hours = { zh = "小时", en = "Hours" }
-- point_id = { zh = "编号", en = "Id" }
SELECT p.name, p.kind, p.district, p.source, l.time AS last_heard, round(epoch(now() - l.time) / 3600, 1) AS hours, p.point_id
FROM points p LEFT JOIN latest l USING (point)
WHERE NOT p.retired AND $district IN ('', p.district) AND $source IN ('', p.source)
  AND (l.time IS NULL OR epoch(now() - l.time) > $minutes * 60)
ORDER BY l.time NULLS FIRST, p.point_id LIMIT 500
