-- A value of any type as a number. NULL for a bool, and for text that is no finite number. The inner cast is exact, so
-- it is NULL for integers beyond 2^53; the cast by way of Int128 rounds these.
v -> if(isNull(dynamicElement(CAST(v, 'Dynamic'), 'Bool')), if(isFinite(accurateCastOrNull(CAST(v, 'Dynamic'), 'Float64')), accurateCastOrNull(CAST(v, 'Dynamic'), 'Float64'), toFloat64(accurateCastOrNull(CAST(v, 'Dynamic'), 'Int128'))), NULL)
