-- Numbers of a path are Int64 or Float64: a query that names the type sums a part of them.
ALTER TABLE events COMMENT COLUMN properties
    'What the client sent beside the columns. Read a value of any type by num(properties.price) or text(properties.country)';
