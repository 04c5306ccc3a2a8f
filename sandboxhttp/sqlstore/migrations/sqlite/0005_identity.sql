-- What the database is called: one row.
CREATE TABLE vivarium_identity (
	singleton INTEGER NOT NULL PRIMARY KEY CHECK (singleton = 1),
	name BLOB NOT NULL
);
