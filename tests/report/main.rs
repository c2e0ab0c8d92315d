//! The report, live view and comparison, driven as a user does, on run folders
//! that are made up.

mod browser;
#[path = "../support/browser.rs"]
mod chromium;
mod folder;
mod pages;
mod server;
mod watch;
