// SPDX-License-Identifier: GPL-2.0-only
//! `chart`: what the benchmarks wrote, as one page with pictures, and as one picture for the
//! README.

mod data;
mod page;
mod svg;

use anyhow::{ensure, Context, Result};
use data::Data;
use std::fs;
use std::path::PathBuf;

/// What to draw from what.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The page.
    #[arg(long)]
    html: PathBuf,
    /// The picture for the README.
    #[arg(long)]
    svg: PathBuf,
    /// JSON lines of `bench`, `bench-scale` and `bench-peers`.
    files: Vec<PathBuf>,
}

/// Draws.
pub fn run(args: &Args) -> Result<()> {
    let mut data = Data::default();
    for path in &args.files {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        data.read(&text);
    }
    ensure!(
        !data.bars.is_empty(),
        "no figures of contenders in {:?}",
        args.files
    );
    fs::write(&args.html, page::page(&data)).with_context(|| args.html.display().to_string())?;
    fs::write(&args.svg, page::picture(&data)).with_context(|| args.svg.display().to_string())?;
    Ok(())
}
