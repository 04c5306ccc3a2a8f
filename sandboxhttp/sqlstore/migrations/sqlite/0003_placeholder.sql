-- Nothing: this number is for another change.
SELECT 1;
