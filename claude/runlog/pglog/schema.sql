-- A log, and how far it is. epoch is the number of the newest lease.
CREATE TABLE IF NOT EXISTS vivarium_runlogs (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run    text COLLATE "C" NOT NULL UNIQUE,
    lines  bigint NOT NULL DEFAULT 0,
    bytes  bigint NOT NULL DEFAULT 0,
    epoch  bigint NOT NULL DEFAULT 0,
    ending bytea
);

-- Lines behind each other, from number first on; sizes are their lengths as uvarints.
CREATE TABLE IF NOT EXISTS vivarium_runlog_lines (
    id    bigint NOT NULL REFERENCES vivarium_runlogs ON DELETE CASCADE,
    first bigint NOT NULL,
    next  bigint NOT NULL,
    sizes bytea NOT NULL,
    data  bytea NOT NULL,
    PRIMARY KEY (id, first)
);
