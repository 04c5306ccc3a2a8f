-- What the database is called: one row.
CREATE TABLE vivarium_identity (
	singleton smallint NOT NULL PRIMARY KEY CHECK (singleton = 1),
	name bytea NOT NULL
);
