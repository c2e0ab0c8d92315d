//! `xla-moco watch`.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use super::{print, status};
use crate::bad_input;
use crate::checkpoint::RunDir;
use crate::report::{Follower, Phase, SharedRun, dashboard, locked, serve};

/// How long a key may wait for its answer.
const BLINK: Duration = Duration::from_millis(100);

/// Follow a run in the terminal, or in a browser on this machine
///
/// Shows curves, the gradient of each layer, events and the verdict, and reads
/// the run's folder again and again. Ends with `q`, with Ctrl-C, or when the
/// run has ended; exits with 3 if it has collapsed, diverged or stalled at
/// chance. Where stdout is no terminal it prints a line whenever there is
/// something new.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco watch runs/quickstart
  xla-moco watch runs/quickstart --serve
  xla-moco watch runs/quickstart --every 60 > log")]
pub struct Args {
    /// The run folder
    pub run: PathBuf,

    /// Serve the report too, on 127.0.0.1; goes on after the run has ended
    ///
    /// Without a port, any that is free. From another machine: ssh -L
    /// PORT:127.0.0.1:PORT HOST.
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = "0")]
    pub serve: Option<u16>,

    /// Seconds between two looks at the folder
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub every: f64,
}

pub fn run(args: &Args) -> Result<()> {
    let every = Duration::try_from_secs_f64(args.every)
        .ok()
        .filter(|every| (BLINK..=Duration::from_secs(86_400)).contains(every))
        .ok_or_else(|| bad_input!("--every is {}; expected 0.1 to 86400 seconds", args.every))?;
    let run = Arc::new(Mutex::new(Follower::read(RunDir::open(&args.run)?)?));
    let address = match args.serve {
        None => None,
        Some(port) => Some(format!("http://{}/", serve(Arc::clone(&run), port)?)),
    };
    let watch = Watch {
        run,
        every,
        address,
        stop: stop_on_signals()?,
    };
    let ended = match io::stdout().is_terminal() {
        true => {
            let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
            let ended = watch.on_screen(&mut terminal);
            ratatui::restore();
            ended?
        }
        false => watch.by_line()?,
    };
    let run = locked(&watch.run);
    match ended {
        true => {
            if io::stdout().is_terminal() {
                print(&format!("{}: {}\n", run.name(), run.health()))?;
            }
            status::or_unhealthy(&run.health())
        }
        false => Ok(()),
    }
}

fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

struct Watch {
    run: SharedRun,
    every: Duration,
    address: Option<String>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    /// Reads what is new; says whether there was anything, and whether the
    /// run is over and nobody asks for its page.
    fn look(&self) -> Result<(bool, bool)> {
        let mut run = locked(&self.run);
        let news = run.poll()?;
        Ok((news, run.phase() != Phase::Going && self.address.is_none()))
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the run ended, and not the one who watches.
    fn by_line(&self) -> Result<bool> {
        if let Some(address) = &self.address {
            print(&format!("{address}\n"))?;
        }
        let mut said = String::new();
        while !self.stopped() {
            let (_, over) = self.look()?;
            let line = dashboard::one_line(&locked(&self.run));
            if line != said {
                print(&format!("{line}\n"))?;
                said = line;
            }
            if over {
                return Ok(true);
            }
            let next = Instant::now() + self.every;
            while Instant::now() < next && !self.stopped() {
                std::thread::sleep(BLINK.min(next.saturating_duration_since(Instant::now())));
            }
        }
        Ok(false)
    }

    fn on_screen(&self, terminal: &mut DefaultTerminal) -> Result<bool> {
        loop {
            let (_, over) = self.look()?;
            terminal.draw(|frame| {
                dashboard::draw(frame, &locked(&self.run), self.address.as_deref());
            })?;
            if over {
                return Ok(true);
            }
            let next = Instant::now() + self.every;
            loop {
                if self.stopped() {
                    return Ok(false);
                }
                let left = next.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                if !event::poll(left.min(BLINK))? {
                    continue;
                }
                match event::read()? {
                    Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                        KeyCode::Char('q') | KeyCode::Esc => return Ok(false),
                        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                            return Ok(false);
                        }
                        _ => {}
                    },
                    Event::Resize(..) => break,
                    _ => {}
                }
            }
        }
    }
}
