-- zh = "12345 诉求:各区县未办结"
-- en = "Appeals open, by district"
-- group = "appeals"
-- chart = { form = "bars", x = "district", y = ["open", "overdue"] }
-- [parameters.category]
-- zh = "类别"
-- en = "Category"
-- type = "text"
-- default = ""
-- [columns]
-- district = { zh = "区县", en = "District" }
-- open = { zh = "未办结", en = "Open" }
-- overdue = { zh = "超期", en = "Overdue" }
-- oldest = { zh = "最早受理", en = "Oldest" }
SELECT district, count(*) AS open, count(*) FILTER (overdue) AS overdue, min(opened) AS oldest
FROM events WHERE type = 'appeal' AND is_open AND $category IN ('', category)
GROUP BY district ORDER BY overdue DESC, open DESC
