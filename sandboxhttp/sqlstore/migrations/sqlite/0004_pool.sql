-- The records of package sandbox/pool. What is looked for is beside the record, which
-- is JSON and has all of it; times are nanoseconds since 1970.
CREATE TABLE vivarium_pool (
	pool       BLOB    NOT NULL,
	key        BLOB    NOT NULL,
	owner      BLOB    NOT NULL,
	id         BLOB    NOT NULL,
	spare      BLOB    NOT NULL,
	live       INTEGER NOT NULL,
	created_at INTEGER NOT NULL,
	ended_at   INTEGER NOT NULL,
	revision   INTEGER NOT NULL,
	record     BLOB    NOT NULL,
	PRIMARY KEY (pool, key),
	UNIQUE (pool, owner, id)
);

CREATE INDEX vivarium_pool_live ON vivarium_pool (pool, live, ended_at);

CREATE INDEX vivarium_pool_spares ON vivarium_pool (pool, spare, live);
