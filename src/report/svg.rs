//! Small line charts as inline SVG, coloured by the page's style sheet.

use std::fmt::Write;

// Units of the view box; the page scales it to the width that there is.
const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 210.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 428.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 184.0;

/// More points than this are drawn as the mean and range of neighbours.
const MAX_POINTS: usize = 240;

/// One line of a chart.
pub(super) struct Series<'a> {
    /// Class in the style sheet: `line`, or `guide` for what is compared with.
    pub class: &'static str,
    /// (step, value), ascending; what is not finite is left out.
    pub points: &'a [(f64, f64)],
}

/// A chart of values over steps; `None` where there is nothing to draw.
/// `label` describes it to those who cannot see it. `from_zero`: the values'
/// axis has 0 on it, so that heights compare as the values do.
pub(super) fn chart(label: &str, series: &[Series], from_zero: bool) -> Option<String> {
    let lines: Vec<Vec<Spot>> = series.iter().map(|s| condense(s.points)).collect();
    let spots = || lines.iter().flatten();
    let steps = series.iter().flat_map(|s| s.points).map(|&(x, _)| x);
    let last = steps.filter(|x| x.is_finite()).reduce(f64::max)?;
    let x = Axis::new(0.0, last.max(1.0), 4, (LEFT, RIGHT), false);
    let low = spots().map(|s| s.low).reduce(f64::min)?;
    let low = if from_zero { low.min(0.0) } else { low };
    let high = spots().map(|s| s.high).reduce(f64::max)?;
    let y = Axis::new(low, high, 4, (BOTTOM, TOP), true);

    let mut svg = format!(
        r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#,
        super::html::escape(label)
    );
    for tick in &y.ticks {
        let at = y.place(*tick);
        let _ = write!(
            svg,
            r#"<path class="grid" d="M{LEFT} {at:.1}H{RIGHT}"/><text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            LEFT - 7.0,
            at + 4.0,
            number(*tick)
        );
    }
    for tick in &x.ticks {
        let _ = write!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            x.place(*tick),
            BOTTOM + 18.0,
            number(*tick)
        );
    }
    for (series, spots) in series.iter().zip(&lines) {
        draw(&mut svg, series.class, spots, &x, &y);
    }
    svg.push_str("</svg>");
    Some(svg)
}

fn draw(svg: &mut String, class: &str, spots: &[Spot], x: &Axis, y: &Axis) {
    if spots.iter().any(|s| s.low < s.high) {
        let there = spots.iter().map(|s| (s.x, s.high));
        let back = spots.iter().rev().map(|s| (s.x, s.low));
        let _ = write!(
            svg,
            r#"<path class="range" d="{}Z"/>"#,
            path(there.chain(back), x, y)
        );
    }
    let means = spots.iter().map(|s| (s.x, s.mean));
    let _ = write!(svg, r#"<path class="{class}" d="{}"/>"#, path(means, x, y));
    // A few measurements are shown as such; a lone one would not show at all.
    if class == "line" && spots.len() <= 40 {
        for s in spots {
            let (cx, cy) = (x.place(s.x), y.place(s.mean));
            let _ = write!(
                svg,
                r#"<circle class="dot" cx="{cx:.1}" cy="{cy:.1}" r="2.2"/>"#
            );
        }
    }
}

fn path(points: impl Iterator<Item = (f64, f64)>, x: &Axis, y: &Axis) -> String {
    let mut d = String::new();
    for (px, py) in points {
        let command = if d.is_empty() { 'M' } else { 'L' };
        let _ = write!(d, "{command}{:.1} {:.1}", x.place(px), y.place(py));
    }
    d
}

/// Neighbouring points as one.
struct Spot {
    x: f64,
    low: f64,
    mean: f64,
    high: f64,
}

fn condense(points: &[(f64, f64)]) -> Vec<Spot> {
    let finite: Vec<(f64, f64)> = points
        .iter()
        .copied()
        .filter(|(x, y)| x.is_finite() && y.is_finite())
        .collect();
    let group = finite.len().div_ceil(MAX_POINTS).max(1);
    let spots = finite.chunks(group).map(|chunk| {
        let n = chunk.len() as f64;
        let values = || chunk.iter().map(|&(_, y)| y);
        Spot {
            x: chunk.iter().map(|&(x, _)| x / n).sum(),
            low: values().fold(f64::INFINITY, f64::min),
            mean: values().map(|y| y / n).sum(),
            high: values().fold(f64::NEG_INFINITY, f64::max),
        }
    });
    spots.collect()
}

/// Maps values to places on the page.
struct Axis {
    from: f64,
    to: f64,
    place: (f64, f64),
    ticks: Vec<f64>,
}

impl Axis {
    /// About `count` intervals between round ticks. `outward`: the axis ends
    /// at ticks that enclose all values; otherwise at the values themselves.
    fn new(low: f64, high: f64, count: usize, place: (f64, f64), outward: bool) -> Self {
        // A constant gets room around it.
        let room = if low == high {
            low.abs().max(1e-6) / 10.0
        } else {
            0.0
        };
        let (low, high) = (low - room, high + room);
        let step = round_step((high - low) / count as f64);
        let (first, last) = if outward {
            ((low / step).floor(), (high / step).ceil())
        } else {
            ((low / step).ceil(), (high / step).floor())
        };
        let ticks: Vec<f64> = (0..=(last - first).clamp(0.0, 20.0) as usize)
            .map(|i| (first + i as f64) * step)
            .collect();
        let (from, to) = if outward {
            (first * step, last * step)
        } else {
            (low, high)
        };
        Axis {
            from,
            to,
            place,
            ticks,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value - self.from) / (self.to - self.from);
        self.place.0 + share * (self.place.1 - self.place.0)
    }
}

/// The least of 1, 2, 5 times a power of ten that is not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let found = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|m| m * power >= step * 0.999);
    found.unwrap_or(10.0) * power
}

/// A number in few characters: `0.00015` as `1.5e-4`, `150000` as `150k`.
pub(super) fn number(value: f64) -> String {
    // Six digits are more than a tick has, fewer than the noise of a sum.
    let value: f64 = format!("{value:.5e}").parse().unwrap_or(value);
    match value.abs() {
        0.0 => "0".into(),
        1e-3..1e4 => format!("{value}"),
        1e4..1e6 => format!("{}k", value / 1e3),
        1e6..1e9 => format!("{}M", value / 1e6),
        _ => format!("{value:e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_few_characters() {
        for (value, text) in [
            (0.0, "0"),
            (0.30000000000000004, "0.3"),
            (1.5e-4, "1.5e-4"),
            (-2.5, "-2.5"),
            (1500.0, "1500"),
            (150_000.0, "150k"),
            (2_500_000.0, "2.5M"),
            (1e12, "1e12"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn ticks_are_round_and_enclose_the_values() {
        let ticks = |low, high| Axis::new(low, high, 4, (0.0, 100.0), true).ticks;
        assert_eq!(ticks(0.0, 100.0), [0.0, 50.0, 100.0]);
        assert_eq!(ticks(2.3, 3.9), [2.0, 2.5, 3.0, 3.5, 4.0]);
        assert_eq!(ticks(-3.0, 3.0), [-4.0, -2.0, 0.0, 2.0, 4.0]);
        // The values' axis places its ends at the ends.
        let axis = Axis::new(2.0, 4.0, 4, (184.0, 10.0), true);
        assert_eq!((axis.place(2.0), axis.place(4.0)), (184.0, 10.0));
        // Neither a constant nor huge or tiny values make it stumble.
        for (low, high) in [(5.0, 5.0), (0.0, 0.0), (-1e300, 1e300), (1e-300, 2e-300)] {
            let axis = Axis::new(low, high, 4, (0.0, 100.0), true);
            assert!((0.0..=100.0).contains(&axis.place(low)), "{low} {high}");
            assert!((2..=21).contains(&axis.ticks.len()), "{low} {high}");
        }
    }

    #[test]
    fn many_points_become_few_and_keep_their_range() {
        let points: Vec<(f64, f64)> = (0..100_000)
            .map(|i| (i as f64, if i == 77_777 { 50.0 } else { (i % 2) as f64 }))
            .collect();
        let spots = condense(&points);
        assert!(spots.len() <= MAX_POINTS);
        assert_eq!(spots.iter().map(|s| s.high).fold(0.0, f64::max), 50.0);
        assert!((spots[0].mean - 0.5).abs() < 0.01);
    }

    #[test]
    fn nothing_to_draw_is_no_chart() {
        let nan = [(1.0, f64::NAN), (2.0, f64::INFINITY)];
        for points in [&[][..], &nan[..]] {
            let class = "line";
            assert_eq!(chart("loss", &[Series { class, points }], true), None);
        }
        let points = &[(1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0)][..];
        let svg = chart(
            "a<b",
            &[Series {
                class: "line",
                points,
            }],
            false,
        )
        .unwrap();
        assert!(svg.contains("a&lt;b") && !svg.contains("NaN"), "{svg}");
    }
}
