//! A Redis server.

use std::sync::Mutex;
use std::time::Duration;

use ::redis::{Client, Commands, Connection};
use anyhow::{Context, Result, anyhow};

use super::{Store, unreachable};

/// For the server to take a connection, and to answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Redis {
    address: String,
    connection: Mutex<Connection>,
}

impl Redis {
    pub fn open(address: &str) -> Result<Self> {
        let connect = || -> ::redis::RedisResult<Connection> {
            let connection = Client::open(address)?.get_connection_with_timeout(PATIENCE)?;
            connection.set_read_timeout(Some(PATIENCE))?;
            connection.set_write_timeout(Some(PATIENCE))?;
            Ok(connection)
        };
        let connection = connect().map_err(|error| unreachable(address, error))?;
        Ok(Self {
            address: address.to_owned(),
            connection: Mutex::new(connection),
        })
    }

    fn ask<T>(&self, ask: impl FnOnce(&mut Connection) -> ::redis::RedisResult<T>) -> Result<T> {
        let mut connection = self
            .connection
            .lock()
            .map_err(|_| anyhow!("another thread failed while it used the store"))?;
        ask(&mut connection).with_context(|| format!("the store {} does not answer", self.address))
    }
}

impl Store for Redis {
    fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        self.ask(|connection| connection.set(key, value))
    }

    fn try_get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.ask(|connection| connection.get(key))
    }

    fn remove(&self, key: &str) -> Result<()> {
        self.ask(|connection| connection.del(key))
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}
