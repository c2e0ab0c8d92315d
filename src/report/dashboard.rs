//! A run in the terminal: a screen of curves, layers and events, or a line.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph, Wrap};

use super::events::{Event, Severity};
use super::follow::{Follower, Phase};
use super::series::Column;
use super::terminal::{StepReport, line};
use crate::monitor::Verdict;

/// Before a layer's gradients: its name, cut to this.
const NAME: usize = 14;
/// Values that a layer's gradient is compared with, as its detector does.
const WINDOW: usize = 100;
/// The detector's threshold.
const SPIKE: f32 = 8.0;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A run in one line, for a pipe.
pub fn one_line(run: &Follower) -> String {
    let verdict = run.health().verdict;
    if run.step() == 0 {
        return "no step has been recorded yet".into();
    }
    let last = |key: &str| run.columns.last(key);
    let number = |key: &str| last(key).map_or(f64::NAN, f64::from);
    let report = StepReport {
        step: run.step(),
        total: run.total_steps().unwrap_or(run.step()),
        epoch: number("epoch"),
        loss: last("loss").unwrap_or(f32::NAN),
        chance_loss: last("chance_loss").unwrap_or(f32::NAN),
        knn_top1: last("knn_top1"),
        images_per_second: number("images_per_second"),
        input_wait: number("input_wait"),
    };
    format!("{}  {verdict}", line(&report, report.knn_top1, None))
}

/// Draws the whole screen. `address`: where the page is served.
pub fn draw(frame: &mut Frame, run: &Follower, address: Option<&str>) {
    let layers = layers(run).count() as u16;
    let area = frame.area();
    let events = (area.height / 5).clamp(3, 9);
    let layers = (layers + 2).min(area.height.saturating_sub(events + 14));
    let [head, curves, heat, news] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Min(6),
        Constraint::Length(layers),
        Constraint::Length(events),
    ])
    .areas(area);
    frame.render_widget(heading(run, address), head);
    let [loss, knn] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(curves);
    curve(
        frame,
        loss,
        "Loss (grey: chance)",
        run,
        "loss",
        Some("chance_loss"),
    );
    curve(
        frame,
        knn,
        "kNN on training pictures, %",
        run,
        "knn_top1",
        None,
    );
    if heat.height > 2 {
        frame.render_widget(gradients(run, heat), heat);
    }
    frame.render_widget(happened(run, news.height), news);
}

fn heading<'a>(run: &Follower, address: Option<&'a str>) -> Paragraph<'a> {
    let health = run.health();
    let colour = match health.verdict {
        Verdict::Healthy => Color::Green,
        Verdict::TooEarly => Color::Reset,
        Verdict::Unstable | Verdict::Degrading => Color::Yellow,
        _ => Color::Red,
    };
    let phase = match run.phase() {
        Phase::Going => "",
        Phase::Ended => "  ended",
        Phase::Failed => "  failed",
    };
    let mut keys = vec!["q ends".dim()];
    keys.extend(address.map(|address| format!("  {address}").cyan()));
    let mut verdict = vec![Span::from(health.verdict.to_string()).fg(colour).bold()];
    if !health.reasons.is_empty() {
        verdict.push(plain(&format!(": {}", health.reasons.join("; "))).into());
    }
    let mut title = vec![plain(run.name()).bold(), phase.into(), "  ".into()];
    title.extend(keys);
    Paragraph::new(vec![
        Line::from(title),
        Line::from(one_line(run)),
        Line::from(verdict),
    ])
}

fn curve(
    frame: &mut Frame,
    area: Rect,
    title: &str,
    run: &Follower,
    key: &str,
    guide: Option<&str>,
) {
    let block = Block::bordered()
        .title(title.to_owned())
        .border_style(Style::new().dim());
    let Some(column) = run.columns.get(key).filter(|c| !c.points.is_empty()) else {
        frame.render_widget(Paragraph::new("nothing yet").block(block), area);
        return;
    };
    // A character of braille is two dots wide.
    let last = run.columns.last_step().max(1);
    let width = last.div_ceil(2 * u32::from(area.width).max(10)).max(1);
    let (mut means, mut extremes) = (Vec::new(), Vec::new());
    for (i, bucket) in column.buckets(width).iter().enumerate() {
        let Some(bucket) = bucket else { continue };
        let x = ((i as f64 + 0.5) * f64::from(width)).min(last.into());
        means.push((x, bucket.mean()));
        extremes.push((x, f64::from(bucket.low)));
        extremes.push((x, f64::from(bucket.high)));
    }
    let guide = guide.and_then(|key| run.columns.last(key)).map(f64::from);
    let guide: Vec<(f64, f64)> = guide.map_or(vec![], |y| vec![(0.0, y), (last.into(), y)]);
    let values = || extremes.iter().chain(&guide).map(|&(_, y)| y);
    let (low, high) = (
        values().fold(f64::INFINITY, f64::min),
        values().fold(f64::NEG_INFINITY, f64::max),
    );
    let room = ((high - low) * 0.05).max(high.abs() * 1e-3).max(1e-9);
    let line = |data, colour| {
        let set = Dataset::default()
            .marker(Marker::Braille)
            .graph_type(GraphType::Line);
        set.style(Style::new().fg(colour)).data(data)
    };
    let spread = Dataset::default()
        .marker(Marker::Braille)
        .graph_type(GraphType::Scatter)
        .style(Style::new().fg(Color::Blue).dim())
        .data(&extremes);
    let chart = Chart::new(vec![
        spread,
        line(&guide, Color::DarkGray),
        line(&means, Color::Cyan),
    ])
    .block(block)
    .x_axis(
        Axis::default()
            .bounds([0.0, last.into()])
            .labels(["0".into(), last.to_string()]),
    )
    .y_axis(
        Axis::default()
            .bounds([low - room, high + room])
            .labels([format!("{low:.2}"), format!("{high:.2}")]),
    )
    .legend_position(None);
    frame.render_widget(chart, area);
}

fn layers(run: &Follower) -> impl Iterator<Item = (&str, &Column)> {
    let columns = run.columns.iter();
    columns.filter_map(|(key, column)| Some((key.strip_prefix("grad_norm/")?, column)))
}

/// The newest steps of each layer: the gradient's norm over its usual.
fn gradients<'a>(run: &Follower, area: Rect) -> Paragraph<'a> {
    let cells = usize::from(area.width).saturating_sub(NAME + 3).max(1);
    let per_cell = if run.step() > 20 * cells as u64 {
        10
    } else {
        1
    };
    let shown = cells * per_cell;
    let lines = layers(run)
        .take(usize::from(area.height) - 2)
        .map(|(name, column)| {
            let from = column.points.len().saturating_sub(shown + WINDOW);
            let recent = Column {
                points: column.points[from..].to_vec(),
                ..Column::default()
            };
            let ratios = recent.over_median(WINDOW).points;
            let ratios = &ratios[ratios.len().saturating_sub(shown)..];
            let name: String = name.chars().take(NAME).collect();
            let mut spans: Vec<Span> = vec![plain(&format!("{name:<NAME$} ")).into()];
            spans.extend(ratios.chunks(per_cell).map(|cell| {
                let ratio = cell.iter().map(|&(_, r)| r).fold(0.0, f32::max);
                // From an eighth of the usual to sixteen times it.
                let height = ((ratio.max(1e-3).log2() + 3.0).clamp(0.0, 6.99) + 0.5) as usize;
                let colour = match ratio {
                    r if r >= SPIKE => Color::Red,
                    r if r >= SPIKE / 2.0 => Color::Yellow,
                    _ => Color::Blue,
                };
                Span::from(BARS[height.min(7)].to_string()).fg(colour)
            }));
            Line::from(spans)
        });
    let title = format!("Gradient of each layer over its usual, last {shown} steps (red: 8 times)");
    Paragraph::new(lines.collect::<Vec<_>>()).block(
        Block::bordered()
            .title(title)
            .border_style(Style::new().dim()),
    )
}

/// Warnings and errors, and where there are none, whatever happened.
fn happened<'a>(run: &Follower, height: u16) -> Paragraph<'a> {
    let count = usize::from(height.saturating_sub(2));
    let mut events = run.trouble(count);
    if events.is_empty() {
        events = run.events.iter().rev().take(count).rev().collect();
    }
    let lines = events.into_iter().rev().map(|event: &Event| {
        let colour = match event.severity {
            Severity::Info => Color::Reset,
            Severity::Warning => Color::Yellow,
            Severity::Error => Color::Red,
        };
        Line::from(vec![
            Span::from(format!("step {}  ", event.step)).dim(),
            Span::from(plain(&event.message)).fg(colour),
        ])
    });
    Paragraph::new(lines.collect::<Vec<_>>())
        .wrap(Wrap { trim: true })
        .block(
            Block::bordered()
                .title("Newest events")
                .border_style(Style::new().dim()),
        )
}

/// Text without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::super::{EventLog, MetricsWriter, Record};
    use super::*;
    use crate::checkpoint::RunDir;

    fn screen(run: &Follower, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| draw(frame, run, Some("http://127.0.0.1:1/")))
            .unwrap();
        let buffer = terminal.backend().buffer();
        let cells = buffer.content().chunks(width.into());
        let rows = cells.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
        rows.collect::<Vec<_>>().join("\n")
    }

    fn made_up() -> (tempfile::TempDir, Follower) {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path().join("mine")).unwrap();
        run.write_config(&json!({"schedule": {"total_steps": 400}}))
            .unwrap();
        let mut metrics = MetricsWriter::open(&run, 0).unwrap();
        for step in 1..=300 {
            let grad = if step == 290 { 20.0 } else { 1.0 };
            let record = Record::new(step, step as f64 / 100.0)
                .f32("loss", 6.0 - step as f32 / 100.0)
                .f32("chance_loss", 5.545)
                .f32("grad_norm/patch_embed", grad)
                .f64("images_per_second", 800.0)
                .f64("input_wait", 0.02);
            metrics.write(&record).unwrap();
        }
        let mut events = EventLog::open(&run, None).unwrap();
        let message = "a spike \x1b[2J";
        events
            .append(
                290,
                "gradient_spike",
                Severity::Warning,
                message,
                Default::default(),
            )
            .unwrap();
        (folder, Follower::read(run).unwrap())
    }

    #[test]
    fn a_screen_has_all_of_it() {
        let (_folder, run) = made_up();
        let text = screen(&run, 100, 40);
        for part in [
            "mine",
            "step 300/400",
            "loss 3.000 (chance 5.545)",
            "http://127.0.0.1:1/",
            "patch_embed",
            "step 290  a spike [2J",
            "nothing yet",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        // The spike is the only full bar.
        assert_eq!(text.matches('█').count(), 1, "{text}");
        // Too small a terminal shows less and does not fail.
        for (width, height) in [(1, 1), (10, 3), (30, 12), (200, 5)] {
            screen(&run, width, height);
        }
    }

    #[test]
    fn a_line_for_a_pipe() {
        let (_folder, run) = made_up();
        assert_eq!(
            one_line(&run),
            "step 300/400  loss 3.000 (chance 5.545)  800 img/s  input wait 2%  epoch 3.0  too early to tell"
        );
    }
}
