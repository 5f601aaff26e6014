-- zh = "到报率"
-- en = "Availability"
-- about_zh = "整点小时内实到读数占应到读数;无上报间隔的测点不计。"
-- about_en = "Readings that came of those due, in whole hours; points without an interval are left out."
-- group = "quality"
-- chart = { form = "bars", x = "name", y = ["share"] }
-- [parameters.by]
-- zh = "分组"
-- en = "By"
-- type = "text"
-- default = "district"
-- choices = [
--   { value = "district", zh = "区县", en = "district" }, { value = "source", zh = "系统", en = "source" },
--   { value = "kind", zh = "类型", en = "kind" },
-- ]
-- [parameters.since]
-- zh = "起"
-- en = "From"
-- type = "time"
-- default = "now-24h"
-- [parameters.until]
-- zh = "止"
-- en = "To"
-- type = "time"
-- default = "now"
-- [columns]
-- name = { zh = "名称", en = "Name" }
-- share = { zh = "到报率", en = "Arrived", form = "share" }
-- good_share = { zh = "合格率", en = "Good", form = "share" }
-- points = { zh = "测点数", en = "Points" }
-- silent = { zh = "全程无报", en = "Silent all the time" }
SELECT name, sum(received) / sum(expected) AS share, sum(good) / nullif(sum(received), 0) AS good_share,
       count(*) AS points, count(*) FILTER (received = 0) AS silent
FROM (SELECT CASE $by WHEN 'district' THEN district WHEN 'source' THEN source ELSE kind END AS name, received, expected, good
      FROM availability($since, $until) WHERE expected IS NOT NULL)
GROUP BY name ORDER BY share
