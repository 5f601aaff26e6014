-- zh = "12345 诉求:解决率与满意率"
-- en = "Appeals: resolved and satisfied"
-- group = "appeals"
-- chart = { form = "bars", x = "name", y = ["resolution_rate", "satisfaction_rate"] }
-- [parameters.by]
-- zh = "分组"
-- en = "By"
-- type = "text"
-- default = "category"
-- choices = [{ value = "category", zh = "类别", en = "category" }, { value = "district", zh = "区县", en = "district" }]
-- [parameters.since]
-- zh = "起"
-- en = "From"
-- type = "time"
-- default = "now-30d"
-- [columns]
-- name = { zh = "名称", en = "Name" }
-- appeals = { zh = "诉求", en = "Appeals" }
-- closed = { zh = "办结", en = "Closed" }
-- resolution_rate = { zh = "解决率", en = "Resolved", form = "share" }
-- satisfaction_rate = { zh = "满意率", en = "Satisfied", form = "share" }
-- hours_to_close = { zh = "办理用时", en = "Until closed", unit = "h" }
SELECT CASE $by WHEN 'district' THEN district ELSE category END AS name, CAST(sum(appeals) AS BIGINT) AS appeals,
       CAST(sum(closed) AS BIGINT) AS closed,
       sum(resolution_rate * solved_answers) / nullif(sum(solved_answers), 0) AS resolution_rate,
       sum(satisfaction_rate * satisfied_answers) / nullif(sum(satisfied_answers), 0) AS satisfaction_rate,
       sum(hours_to_close * closed) / nullif(sum(closed), 0) AS hours_to_close
FROM appeals_by($since, now()) GROUP BY name ORDER BY appeals DESC
