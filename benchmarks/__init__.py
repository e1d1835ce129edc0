"""What the project is measured against, side by side in one run: `make bench` measures and writes the page.

How it is measured:

- Every figure is a ratio of two times of one run, never a time by itself: a slower machine slows both. The
  aims that are times are told as times. The arms of a comparison take turns, each repetition begins with
  another one and has fresh databases, and what the page shows is the median of the repetitions' ratios, with
  the lowest and the highest. After the timed part each arm's database is opened again and asked whether all
  of the work is in it.
- The limit is what one would write by hand: the same schema, statements and settings, one kept connection
  (on PostgreSQL with one cursor, each statement prepared), `json` to write and read values, and the same
  refusal of what JSON would not give back equal.
- The rivals work as their documentation shows. LangGraph's `SqliteStore` is measured once more on a
  connection with a write-ahead log; it keeps times to the second, so it does not know which of two rows of
  one second is the newer, and is asked only whether they are the player's. SQLAlchemy and peewee work on our
  tables with our settings of SQLite: Core with its upsert, the ORM with a session for each call that finds an
  object and changes it or adds one, peewee with its models. diskcache has neither tables nor lists: a
  conversation is a counter and numbered keys. The arms that wait for the disk at each commit are timed for a
  fifth of the writes, having been given the rest.
- The server is on the same machine, over a Unix socket, and does not wait for its disk (`fsync` and
  `synchronous_commit` are off): so the part of the client, which is what differs, is as large as it can be.
- Opening: a process from its start to its end where imports are counted in. *By hand* is the least that the
  storage's promises cost: its settings on the connection, a look at the folder, and one SELECT. yoyo's check
  is `to_apply` alone; as documented it takes a lock, which writes.
- Growth: a hundred small rows of each player in each of the two tables, players at random, all in memory:
  SQLite's files in the system's, PostgreSQL's in a quarter of it that the server has for itself.
- Many at once: of a hundred calls 60 are point reads, 15 reads of the newest 20, 15 upserts, 5 appends, and 5
  read a count and write the next one in a block; raw does that in `BEGIN IMMEDIATE`, or with `FOR UPDATE`.
  On asyncio the drivers have a pool, 4 connections of aiosqlite's and 10 of psycopg's.
"""
