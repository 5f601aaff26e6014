-- zh = "视频在线率"
-- en = "Video online rate"
-- group = "video"
-- chart = { form = "bars", x = "district", y = ["online_now", "online_rate"] }
-- [parameters.since]
-- zh = "起"
-- en = "From"
-- type = "time"
-- default = "now-1h"
-- [parameters.kind]
-- zh = "类型"
-- en = "Kind"
-- type = "kind"
-- default = "video"
-- [columns]
-- district = { zh = "区县", en = "District" }
-- channels = { zh = "路数", en = "Channels" }
-- online_now = { zh = "现在在线", en = "Online now", form = "share" }
-- online_rate = { zh = "时段在线率", en = "Online in the span", form = "share" }
-- bad_picture = { zh = "画面异常", en = "Bad picture", form = "share" }
SELECT district, CAST(sum(points) AS BIGINT) AS channels, sum(online_now) / sum(points) AS online_now,
       sum(online_rate * points) / sum(points) AS online_rate, avg(bad_picture_share) AS bad_picture
FROM online_rate($kind, $since, now()) GROUP BY district ORDER BY online_now
