-- Times are nanoseconds since 1970, days are days since then, claude_time is
-- nanoseconds and cost millionths of a dollar. Kinds are bytes, as accounts and ids
-- are, so that they sort byte by byte.
CREATE TABLE vivarium_usage_places (
	account            BLOB    NOT NULL,
	kind               BLOB    NOT NULL,
	id                 BLOB    NOT NULL,
	sandbox_id         BLOB    NOT NULL,
	taken_at           INTEGER NOT NULL,
	sandboxes          INTEGER NOT NULL,
	claude_time        INTEGER NOT NULL,
	cost               INTEGER NOT NULL,
	tokens             INTEGER NOT NULL,
	bytes_in           INTEGER NOT NULL,
	bytes_out          INTEGER NOT NULL,
	PRIMARY KEY (account, kind, id)
);

CREATE INDEX vivarium_usage_places_oldest ON vivarium_usage_places (taken_at, account, kind, id);

CREATE INDEX vivarium_usage_places_oldest_of_account ON vivarium_usage_places (account, taken_at, kind, id);

CREATE TABLE vivarium_usage_entries (
	account            BLOB    NOT NULL,
	id                 BLOB    NOT NULL,
	kind               BLOB    NOT NULL,
	place              BLOB    NOT NULL,
	sandbox_id         BLOB    NOT NULL,
	run_id             BLOB    NOT NULL,
	used_at            INTEGER NOT NULL,
	sandboxes          INTEGER NOT NULL,
	runs               INTEGER NOT NULL,
	claude_time        INTEGER NOT NULL,
	cost               INTEGER NOT NULL,
	input_tokens       INTEGER NOT NULL,
	output_tokens      INTEGER NOT NULL,
	cache_read_tokens  INTEGER NOT NULL,
	cache_write_tokens INTEGER NOT NULL,
	bytes_in           INTEGER NOT NULL,
	bytes_out          INTEGER NOT NULL,
	PRIMARY KEY (account, id)
);

CREATE INDEX vivarium_usage_entries_oldest ON vivarium_usage_entries (used_at, account, id);

CREATE INDEX vivarium_usage_entries_oldest_of_account ON vivarium_usage_entries (account, used_at, id);

-- The sums of the entries of a day.
CREATE TABLE vivarium_usage_days (
	account            BLOB    NOT NULL,
	day                INTEGER NOT NULL,
	sandboxes          INTEGER NOT NULL,
	runs               INTEGER NOT NULL,
	claude_time        INTEGER NOT NULL,
	cost               INTEGER NOT NULL,
	input_tokens       INTEGER NOT NULL,
	output_tokens      INTEGER NOT NULL,
	cache_read_tokens  INTEGER NOT NULL,
	cache_write_tokens INTEGER NOT NULL,
	bytes_in           INTEGER NOT NULL,
	bytes_out          INTEGER NOT NULL,
	PRIMARY KEY (account, day)
);

CREATE INDEX vivarium_usage_days_oldest ON vivarium_usage_days (day, account);
