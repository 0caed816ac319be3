-- A value of any type as text. NULL for an object.
v -> accurateCastOrNull(CAST(v, 'Dynamic'), 'String')
