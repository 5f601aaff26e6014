-- zh = "退回隔离:按系统和原因"
-- en = "Quarantine by source and reason"
-- group = "quality"
-- [parameters.since]
-- zh = "起"
-- en = "From"
-- type = "time"
-- default = "now-24h"
-- [columns]
-- source = { zh = "系统", en = "Source" }
-- reason = { zh = "原因", en = "Reason" }
-- refused = { zh = "条数", en = "Refused" }
-- replayed = { zh = "已重放", en = "Sent again" }
-- newest = { zh = "最近", en = "Newest" }
SELECT source, reason, count(*) AS refused, count(replayed_at) AS replayed, max(received_at) AS newest
FROM quarantine WHERE received_at >= $since
GROUP BY source, reason ORDER BY refused DESC LIMIT 500
