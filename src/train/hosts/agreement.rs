//! All hosts are about to run the same: compared by a program of one
//! collective, before the first step.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use super::super::devices::Devices;
use super::{Exchange, deadline};
use crate::bad_input;
use crate::config::RunConfig;
use crate::pjrt::{self, Arg, Client, CompileOptions};
use crate::programs::agreement;

/// What hosts must agree on: its name, and this host's content.
pub struct Stance {
    parts: Vec<(&'static str, String)>,
}

/// Words of each part.
const WORDS: usize = 2;

impl Stance {
    pub fn new(parts: Vec<(&'static str, String)>) -> Self {
        Self { parts }
    }

    /// i32 words of one row.
    fn width(&self) -> usize {
        WORDS * self.parts.len()
    }

    /// One row, little-endian.
    fn row(&self) -> Vec<u8> {
        let digests = self
            .parts
            .iter()
            .map(|(_, content)| Sha256::digest(content));
        digests
            .flat_map(|digest| digest[..4 * WORDS].to_vec())
            .collect()
    }

    /// The rows of this host's devices.
    fn rows(&self, devices: usize) -> Vec<u8> {
        self.row().repeat(devices)
    }

    /// Compares the rows of all devices, which belong to `hosts` hosts in
    /// their order.
    ///
    /// # Errors
    /// [`bad_input!`] that names the hosts that differ from most, and in what.
    fn compare(&self, all: &[u8], hosts: usize) -> Result<()> {
        let width = 4 * self.width();
        let devices = all.len() / width.max(1);
        ensure!(
            devices.is_multiple_of(hosts),
            "{devices} rows of {hosts} hosts"
        );
        let of_host = |host: usize, part: usize| {
            let start = host * (devices / hosts) * width + 4 * WORDS * part;
            &all[start..start + 4 * WORDS]
        };
        let mut found = Vec::new();
        for (part, (name, _)) in self.parts.iter().enumerate() {
            let votes = |host: usize| {
                let same = |other: &usize| of_host(*other, part) == of_host(host, part);
                (0..hosts).filter(same).count()
            };
            // The first of those that most agree with.
            let (most, _) = (0..hosts)
                .map(|host| (host, votes(host)))
                .reduce(|best, next| if next.1 > best.1 { next } else { best })
                .context("no hosts")?;
            for host in 0..hosts {
                if of_host(host, part) != of_host(most, part) {
                    found.push(format!(
                        "host {host} differs from host {most} in its {name}"
                    ));
                }
            }
        }
        match found.is_empty() {
            true => Ok(()),
            false => Err(bad_input!(
                "the hosts are not about to run the same: {}. Give all hosts the same version, \
                 configuration, pictures and, in a folder that they share, --out",
                found.join("; ")
            )),
        }
    }
}

/// Runs the program in which all hosts compare what they are about to run.
///
/// # Errors
/// [`bad_input!`] that names the hosts that differ, and in what; if they have
/// not compared within the deadline.
pub fn agree(
    stance: &Stance,
    client: &Arc<Client>,
    devices: &Devices,
    hosts: usize,
    exchange: Option<&Exchange>,
    config: &RunConfig,
) -> Result<()> {
    let program = agreement::build(devices.all(), stance.width())?;
    let options = CompileOptions {
        num_partitions: devices.all(),
        ..CompileOptions::default()
    };
    let text = program.text();
    let executable = client.compile(&pjrt::Program { text: &text }, &options)?;
    let input = &program.graph.inputs[0];
    let mut own = stance.rows(devices.all() / hosts);
    if let Some(exchange) = exchange {
        own = exchange.join("stance", &own, &mut || false)?;
    }
    let rows = devices.place_own(&own, input.value.shape, input.sharding.as_ref())?;
    let rows = rows.into_iter().map(|row| vec![Arg::Donate(row)]);
    let results = executable.execute(rows.collect())?;
    let all = results.buffers.into_iter().flatten().next();
    let all = all.context("the agreement gave nothing")?.to_host_async()?;
    let (outgoing, incoming) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || outgoing.send(all.wait()));
    let deadline = deadline(config);
    match incoming.recv_timeout(deadline) {
        Ok(all) => stance.compare(&all?, hosts),
        Err(_) => {
            // A device waits for the others: nothing may wait for it.
            std::mem::forget((executable, client.clone()));
            bail!(
                "the hosts have not compared what they are about to run after {deadline:?} \
                 (mesh.deadline_seconds): one of them has failed before, or cannot be reached"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stance(program: &str, step: u64) -> Stance {
        Stance::new(vec![
            ("program", program.into()),
            ("step", step.to_string()),
        ])
    }

    #[test]
    fn the_odd_one_is_named_with_what_differs() {
        let rows = |stances: &[Stance]| stances.iter().flat_map(|s| s.rows(2)).collect::<Vec<_>>();
        let same = [stance("p", 1), stance("p", 1), stance("p", 1)];
        same[0].compare(&rows(&same), 3).unwrap();
        let odd = [stance("q", 1), stance("p", 1), stance("p", 2)];
        let error = odd[1].compare(&rows(&odd), 3).unwrap_err();
        assert!(error.is::<crate::error::BadInput>());
        let text = error.to_string();
        assert!(
            text.contains("host 0 differs from host 1 in its program;"),
            "{text}"
        );
        assert!(
            text.contains("host 2 differs from host 0 in its step."),
            "{text}"
        );
    }
}
