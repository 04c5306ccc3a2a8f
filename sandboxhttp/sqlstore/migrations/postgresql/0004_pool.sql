-- The records of package sandbox/pool. What is looked for is beside the record, which
-- is JSON and has all of it; times are nanoseconds since 1970.
CREATE TABLE vivarium_pool (
	pool       bytea    NOT NULL,
	key        bytea    NOT NULL,
	owner      bytea    NOT NULL,
	id         bytea    NOT NULL,
	spare      bytea    NOT NULL,
	live       smallint NOT NULL,
	created_at bigint   NOT NULL,
	ended_at   bigint   NOT NULL,
	revision   bigint   NOT NULL,
	record     bytea    NOT NULL,
	PRIMARY KEY (pool, key),
	UNIQUE (pool, owner, id)
);

CREATE INDEX vivarium_pool_live ON vivarium_pool (pool, live, ended_at);

CREATE INDEX vivarium_pool_spares ON vivarium_pool (pool, spare, live);
