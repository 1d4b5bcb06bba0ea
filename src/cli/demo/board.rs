//! The live view: bars on a terminal, a plain line a second elsewhere. All of it goes to stderr.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::cli::output::grouped;

/// Without a terminal: one line so often.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// One bar.
#[derive(Clone, Debug)]
pub struct Progress {
    /// `publish` or the name of a group.
    pub name: &'static str,
    /// Events so far.
    pub done: u64,
    /// What to say behind the bar.
    pub note: String,
}

/// The view.
pub struct Board {
    total: u64,
    start: Instant,
    bars: Option<Bars>,
    last_line: Option<Instant>,
    before: Vec<(&'static str, u64, Instant, f64)>,
}

struct Bars {
    multi: MultiProgress,
    bars: Vec<(&'static str, ProgressBar)>,
    foot: ProgressBar,
}

impl Board {
    /// A view of something with `total` events.
    pub fn new(total: u64) -> Board {
        let bars = std::io::stderr().is_terminal().then(|| {
            let multi = MultiProgress::new();
            let foot = multi.add(ProgressBar::new_spinner());
            foot.set_style(style("{msg}"));
            Bars { multi, bars: Vec::new(), foot }
        });
        Board { total, start: Instant::now(), bars, last_line: None, before: Vec::new() }
    }

    /// Something happened that is worth a line of its own.
    pub fn say(&mut self, text: &str) {
        let line = format!("{:6.1} s  {text}", self.start.elapsed().as_secs_f64());
        match &self.bars {
            Some(bars) => {
                // A terminal that went away is no reason to stop the demo.
                let _ = bars.multi.println(line);
            }
            None => eprintln!("{line}"),
        }
    }

    /// Shows where everybody is; `pressure` = what limits whom.
    pub fn show(&mut self, progress: &[Progress], pressure: &str) {
        let rates: Vec<f64> = progress.iter().map(|p| self.rate(p)).collect();
        if self.bars.is_some() {
            for (progress, rate) in progress.iter().zip(rates) {
                self.show_bar(progress, rate);
            }
            if let Some(bars) = &self.bars {
                bars.foot.set_message(format!("pressure    {pressure}"));
            }
            return;
        }
        if self.last_line.is_some_and(|at| at.elapsed() < LINE_EVERY) {
            return;
        }
        self.last_line = Some(Instant::now());
        let parts: Vec<String> = progress
            .iter()
            .zip(rates)
            .map(|(p, rate)| {
                let rate = grouped(rate as u64);
                format!("{} {} ({rate}/s{}{})", p.name, grouped(p.done), comma(&p.note), p.note)
            })
            .collect();
        let line = format!("{} | pressure {pressure}", parts.join(" | "));
        self.say(&line);
    }

    fn show_bar(&mut self, progress: &Progress, rate: f64) {
        let total = self.total;
        let Some(bars) = &mut self.bars else { return };
        let known = bars.bars.iter().position(|(name, _)| *name == progress.name);
        let bar = match known {
            Some(at) => &bars.bars[at].1,
            None => {
                let bar = bars.multi.insert_before(&bars.foot, ProgressBar::new(total));
                bar.set_style(style("{prefix:10} {bar:32} {pos:>7}/{len}  {msg}"));
                bar.set_prefix(progress.name);
                bars.bars.push((progress.name, bar));
                &bars.bars[bars.bars.len() - 1].1
            }
        };
        bar.set_position(progress.done.min(total));
        let rate = grouped(rate as u64);
        bar.set_message(format!("{rate:>7}/s{}{}", comma(&progress.note), progress.note));
    }

    /// Events a second, smoothed over about a second.
    fn rate(&mut self, progress: &Progress) -> f64 {
        let now = Instant::now();
        let known = self.before.iter_mut().find(|(name, ..)| *name == progress.name);
        let Some((_, done, at, rate)) = known else {
            self.before.push((progress.name, progress.done, now, 0.0));
            return 0.0;
        };
        let seconds = now.duration_since(*at).as_secs_f64();
        if seconds >= 0.2 {
            let fresh = progress.done.saturating_sub(*done) as f64 / seconds;
            *rate = if *rate == 0.0 { fresh } else { *rate * 0.6 + fresh * 0.4 };
            (*done, *at) = (progress.done, now);
        }
        *rate
    }

    /// Takes the bars away, so that the table follows.
    pub fn finish(&mut self) {
        if let Some(bars) = &self.bars {
            for (_, bar) in &bars.bars {
                bar.abandon();
            }
            bars.foot.finish_and_clear();
        }
    }
}

fn comma(note: &str) -> &'static str {
    if note.is_empty() { "" } else { ", " }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
