-- Statements are separated by an empty line. Accounts and ids are bytes, so that
-- they compare byte by byte and may hold what text may not; times are nanoseconds
-- since 1970; a record is JSON: convert_from(record, 'UTF8') shows it.
CREATE TABLE vivarium_sandboxes (
	account    bytea  NOT NULL,
	id         bytea  NOT NULL,
	state      text   NOT NULL,
	created_at bigint NOT NULL,
	record     bytea  NOT NULL,
	PRIMARY KEY (account, id)
);

CREATE INDEX vivarium_sandboxes_newest ON vivarium_sandboxes (account, created_at DESC, id DESC);

CREATE INDEX vivarium_sandboxes_newest_of_state ON vivarium_sandboxes (account, state, created_at DESC, id DESC);

CREATE TABLE vivarium_runs (
	account    bytea  NOT NULL,
	sandbox_id bytea  NOT NULL,
	id         bytea  NOT NULL,
	started_at bigint NOT NULL,
	record     bytea  NOT NULL,
	PRIMARY KEY (account, sandbox_id, id),
	FOREIGN KEY (account, sandbox_id) REFERENCES vivarium_sandboxes (account, id) ON DELETE CASCADE
);

CREATE INDEX vivarium_runs_oldest ON vivarium_runs (account, sandbox_id, started_at, id);
