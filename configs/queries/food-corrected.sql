-- zh = "食品违规整改:按种类"
-- en = "Food: violations put right, by kind"
-- group = "food"
-- chart = { form = "bars", x = "violation", y = ["violations", "corrected"] }
-- [parameters.since]
-- zh = "起"
-- en = "From"
-- type = "time"
-- default = "month-180d"
-- [columns]
-- violation = { zh = "种类", en = "Violation" }
-- violations = { zh = "发现", en = "Found" }
-- corrected = { zh = "已整改", en = "Put right" }
-- days_to_correct = { zh = "整改天数", en = "Days" }
SELECT violation, CAST(sum(violations) AS BIGINT) AS violations, CAST(sum(corrected) AS BIGINT) AS corrected,
       sum(days_to_correct * corrected) / nullif(sum(corrected), 0) AS days_to_correct
FROM violations_by($since, now()) GROUP BY violation ORDER BY violations DESC
