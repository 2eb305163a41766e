-- A statement in the order of its arrival. The id is SHA-256 of the PAE. `links` is a checksum over
-- what leads from it to other statements, the seal one over kind, links and envelope.
CREATE TABLE statement (
    seq INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE CHECK (length(id) = 32),
    kind INTEGER NOT NULL,
    links BLOB NOT NULL,
    seal BLOB NOT NULL,
    envelope BLOB NOT NULL
) STRICT;

CREATE INDEX statement_kind ON statement (kind);

-- What a statement names: other statements, artifacts, keys. All of it as the payload says, unverified.
CREATE TABLE link (
    target BLOB NOT NULL CHECK (length(target) = 32),
    relation INTEGER NOT NULL,
    source INTEGER NOT NULL REFERENCES statement (seq),
    PRIMARY KEY (target, relation, source)
) STRICT, WITHOUT ROWID;

CREATE INDEX link_walked ON link (source) WHERE relation < 100;

-- How many links of a gathered relation lead to a target, so that a damaged index cannot hide a
-- withdrawal or a fork.
CREATE TABLE arrival (
    target BLOB NOT NULL,
    relation INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (target, relation)
) STRICT, WITHOUT ROWID;

-- One row: where trust begins and how far it has come.
CREATE TABLE trust (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    pin BLOB,
    version INTEGER,
    policy BLOB,
    time INTEGER,
    seal BLOB NOT NULL
) STRICT;

-- A task that somebody began to run here, and the manifest that ended it. There are several rows of one
-- task where several machines do it, each for itself.
CREATE TABLE run (
    task BLOB NOT NULL,
    who TEXT NOT NULL,
    manifest BLOB,
    seal BLOB NOT NULL,
    PRIMARY KEY (task, who)
) STRICT, WITHOUT ROWID;

-- One row: how many transactions changed something, as the file `generation` says too.
CREATE TABLE generation (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    count INTEGER NOT NULL,
    seal BLOB NOT NULL
) STRICT;
