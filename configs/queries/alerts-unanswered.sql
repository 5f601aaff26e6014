-- zh = "未应答的告警"
-- en = "Alerts nobody has answered"
-- about_zh = "已呼叫、尚无人应答、也未结束的告警。"
-- about_en = "Called out, answered by nobody, and not over."
-- group = "alerts"
-- [parameters.severity]
-- zh = "不低于"
-- en = "At least"
-- type = "integer"
-- default = 1
-- choices = [
--   { value = 1, zh = "蓝", en = "blue" }, { value = 2, zh = "黄", en = "yellow" },
--   { value = 3, zh = "橙", en = "orange" }, { value = 4, zh = "红", en = "red" },
-- ]
-- [columns]
-- severity = { zh = "等级", en = "Severity" }
-- district = { zh = "区县", en = "District" }
-- rule = { zh = "规则", en = "Rule" }
-- summary_zh = { zh = "内容", en = "Summary (zh)" }
-- called_at = { zh = "呼叫时间", en = "Called at" }
-- minutes = { zh = "已等分钟", en = "Minutes waiting" }
-- escalations = { zh = "升级次数", en = "Escalations" }
-- id = { zh = "编号", en = "Id" }
SELECT a.severity, a.district, a.rule, a.summary_zh, s.called_at,
       round(epoch(now() - s.called_at) / 60, 1) AS minutes, s.escalations, a.id
FROM alerts a JOIN (
    SELECT alert_id AS id, min("at") FILTER (step = 'called') AS called_at,
           count(*) FILTER (step = 'escalated') AS escalations, count(*) FILTER (step = 'answered') AS answers
    FROM alert_log GROUP BY alert_id) s USING (id)
WHERE a.state = 'firing' AND s.called_at IS NOT NULL AND s.answers = 0 AND a.severity >= $severity AND NOT a.drill
ORDER BY a.severity DESC, s.called_at LIMIT 500
