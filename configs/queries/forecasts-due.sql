-- zh = "预计到限:未来几小时"
-- en = "Forecasts that reach their limit"
-- group = "flood"
-- [parameters.hours]
-- zh = "小时内"
-- en = "Within hours"
-- type = "number"
-- default = 3
-- min = 0.1
-- max = 72
-- [columns]
-- district = { zh = "区县", en = "District" }
-- name = { zh = "测点", en = "Point" }
-- limit_value = { zh = "限值", en = "Limit" }
-- unit = { zh = "单位", en = "Unit" }
-- minutes_left = { zh = "剩余分钟", en = "Minutes left" }
-- made_at = { zh = "作出时间", en = "Made at" }
-- method = { zh = "方法", en = "Method" }
-- point_id = { zh = "编号", en = "Id" }
SELECT p.district, p.name, f."limit" AS limit_value, p.unit,
       round((epoch(f.made_at) + f.eta_s - epoch(now())) / 60, 1) AS minutes_left, f.made_at, f.method, p.point_id
FROM (SELECT point_id, unnest(max_by(forecasts, made_at)) FROM forecasts
      WHERE made_at > now() - INTERVAL 1 HOUR GROUP BY point_id) f
JOIN points p USING (point_id)
WHERE f.eta_s IS NOT NULL AND epoch(f.made_at) + f.eta_s BETWEEN epoch(now()) AND epoch(now()) + $hours * 3600
ORDER BY minutes_left LIMIT 500
