//! The database: three tables in one redb file, read once at start, written in one transaction per change.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use minicbor::Decode;
use redb::{ReadableDatabase, ReadableTable, TableDefinition};

use crate::{
    error::Error,
    fault::reach,
    schema::{self, ImageRow, LayerRow, NameRow},
    state::{Change, State},
};

type Rows = TableDefinition<'static, &'static str, &'static [u8]>;
const IMAGES: Rows = TableDefinition::new("images");
const NAMES: Rows = TableDefinition::new("names");
const LAYERS: Rows = TableDefinition::new("layers");

/// The default is a gigabyte; a thousand images are a few hundred kilobytes.
const CACHE: usize = 4 << 20;

#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    /// `None` after an error of redb, which wants to be opened anew after one.
    open: Option<redb::Database>,
}

impl Database {
    /// Opens or makes the database and reads all of it.
    pub(crate) fn open(path: &Path) -> Result<(Self, State), Error> {
        // Damage that redb's own checks do not foresee ends in a panic of its debug assertions; to us it is damage.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let database = open(path)?;
            let state = load(&database)?;
            Ok((database, state))
        }));
        let panicked = |_| Err(Error::database("open", redb::Error::Corrupted("redb panicked over it".to_owned())));
        let (database, state) = opened.unwrap_or_else(panicked)?;
        Ok((Self { path: path.to_owned(), open: Some(database) }, state))
    }

    /// Whether an error of [`Database::open`] says that the file is damaged, as against that it cannot be had.
    pub(crate) fn is_damage(error: &Error) -> bool {
        use std::io::ErrorKind as Io;
        match error {
            Error::Row { .. } => true,
            Error::Database { source, .. } => match source.as_ref() {
                redb::Error::Io(e) => matches!(e.kind(), Io::InvalidData | Io::UnexpectedEof),
                redb::Error::DatabaseAlreadyOpen => false,
                _ => true,
            },
            _ => false,
        }
    }

    /// The file has got another name.
    pub(crate) fn moved(&mut self, path: &Path) {
        self.path = path.to_owned();
    }

    /// Makes a change durable.
    pub(crate) fn commit(&mut self, change: &Change) -> Result<(), Error> {
        reach("database").map_err(|e| Error::database("begin", redb::Error::Io(e)))?;
        let database = match self.open.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        // On an error the database is dropped here and opened anew by the next change: redb refuses all work after a
        // failed write, and what it had not committed is rolled back by opening.
        commit(&database, change)?;
        self.open = Some(database);
        reach("database committed").map_err(|e| Error::database("commit", redb::Error::Io(e)))
    }
}

fn open(path: &Path) -> Result<redb::Database, Error> {
    let mut builder = redb::Database::builder();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder.create(path).map_err(|e| Error::database("open", e))
}

fn commit(database: &redb::Database, change: &Change) -> Result<(), Error> {
    let wrong = |e: redb::Error| Error::database("write", e);
    let transaction = database.begin_write().map_err(|e| wrong(e.into()))?;
    {
        let mut images = transaction.open_table(IMAGES).map_err(|e| wrong(e.into()))?;
        for (id, row) in &change.images {
            put(&mut images, &id.to_string(), row.as_deref()).map_err(|e| wrong(e.into()))?;
        }
        let mut names = transaction.open_table(NAMES).map_err(|e| wrong(e.into()))?;
        for (name, row) in &change.names {
            put(&mut names, name, row.as_deref()).map_err(|e| wrong(e.into()))?;
        }
        let mut layers = transaction.open_table(LAYERS).map_err(|e| wrong(e.into()))?;
        for (id, row) in &change.layers {
            put(&mut layers, &id.to_string(), row.as_deref()).map_err(|e| wrong(e.into()))?;
        }
    }
    transaction.commit().map_err(|e| Error::database("commit", e))
}

fn put<T: minicbor::Encode<()>>(
    table: &mut redb::Table<'_, &'static str, &'static [u8]>,
    key: &str,
    row: Option<&T>,
) -> Result<(), redb::StorageError> {
    match row {
        Some(row) => table.insert(key, schema::encode(row).as_slice()).map(drop),
        None => table.remove(key).map(drop),
    }
}

fn load(database: &redb::Database) -> Result<State, Error> {
    let mut change = Change::default();
    let transaction = database.begin_read().map_err(|e| Error::database("read", e))?;
    rows::<ImageRow>(&transaction, IMAGES, |_, row| {
        change.images.push((row.record.id, Some(Arc::new(row))));
        Some(())
    })?;
    rows::<NameRow>(&transaction, NAMES, |key, row| {
        change.names.push((key.into(), Some(Arc::new(row))));
        Some(())
    })?;
    rows::<LayerRow>(&transaction, LAYERS, |key, row| {
        change.layers.push((model::DiffId::new(key.parse().ok()?), Some(Arc::new(row))));
        Some(())
    })?;
    let mut state = State::default();
    state.apply(&change);
    Ok(state)
}

fn rows<T: for<'b> Decode<'b, ()>>(
    transaction: &redb::ReadTransaction,
    table: Rows,
    mut each: impl FnMut(&str, T) -> Option<()>,
) -> Result<(), Error> {
    let open = match transaction.open_table(table) {
        Ok(open) => open,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(e) => return Err(Error::database("read", e)),
    };
    let wrong = |e: redb::StorageError| Error::database("read", e);
    for entry in open.iter().map_err(wrong)? {
        let (key, value) = entry.map_err(wrong)?;
        let (key, value) = (key.value(), value.value());
        let damaged = || Error::Row { table: table_name(&table), key: key.chars().take(100).collect() };
        let row = minicbor::decode(value).map_err(|_| damaged())?;
        each(key, row).ok_or_else(damaged)?;
    }
    Ok(())
}

fn table_name(table: &Rows) -> String {
    redb::TableHandle::name(table).to_owned()
}
