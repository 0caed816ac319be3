-- Attempts of viewers are recorded, too.
ALTER TABLE audit COMMENT COLUMN result 'begun, done, failed, or denied: the role of the token does not allow it';
