//! The metrics of a run by name, and the same in few points.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A run has some dozens of metrics; what a damaged or foreign file has beyond
/// these is passed over.
const MOST_KEYS: usize = 256;
/// Values that were not finite are counted, and so many are placed.
const MOST_LOST: usize = 200;

/// One metric over the steps.
#[derive(Clone, Debug, Default)]
pub(super) struct Column {
    /// (step, value): steps ascend, values are finite.
    pub points: Vec<(u32, f32)>,
    /// The first steps whose value was NaN or infinite, and how many there are.
    pub lost: Vec<u32>,
    pub lost_count: usize,
}

impl Column {
    pub fn last(&self) -> Option<f32> {
        self.points.last().map(|&(_, value)| value)
    }

    /// The largest value, and the first step that has it.
    pub fn max(&self) -> Option<(u32, f32)> {
        let points = self.points.iter().copied().rev();
        points.max_by(|a, b| a.1.total_cmp(&b.1))
    }

    pub fn mean(&self) -> Option<f64> {
        let sum: f64 = self.points.iter().map(|&(_, value)| f64::from(value)).sum();
        (!self.points.is_empty()).then(|| sum / self.points.len() as f64)
    }

    pub fn median(&self) -> Option<f32> {
        let mut values: Vec<f32> = self.points.iter().map(|&(_, value)| value).collect();
        let middle = values.len() / 2;
        values.sort_unstable_by(f32::total_cmp);
        values.get(middle).copied()
    }

    /// Each value over the median of the `window` values before it: 1 is what
    /// is usual, a spike stands out, a slow change does not.
    pub fn over_median(&self, window: usize) -> Column {
        let mut sorted: Vec<f32> = Vec::with_capacity(window + 1);
        let mut points = Vec::with_capacity(self.points.len());
        for (i, &(step, value)) in self.points.iter().enumerate() {
            if let Some(&median) = sorted.get(sorted.len() / 2)
                && median > 0.0
            {
                points.push((step, value / median));
            }
            let place = |sorted: &[f32], value: f32| {
                sorted.partition_point(|x| x.total_cmp(&value).is_lt())
            };
            sorted.insert(place(&sorted, value), value);
            if sorted.len() > window {
                let oldest = place(&sorted, self.points[i - window].1);
                sorted.remove(oldest);
            }
        }
        Column {
            points,
            ..self.clone_lost()
        }
    }

    fn clone_lost(&self) -> Column {
        Column {
            points: Vec::new(),
            lost: self.lost.clone(),
            lost_count: self.lost_count,
        }
    }

    /// Least, mean and greatest value of each `width` steps: bucket i has the
    /// steps from `i * width + 1` to `(i + 1) * width`; `None` where there is
    /// no value. So no minimum and no maximum is ever lost.
    pub fn buckets(&self, width: u32) -> Vec<Option<Bucket>> {
        let mut buckets: Vec<Option<Bucket>> = Vec::new();
        for &(step, value) in &self.points {
            let place = (step.saturating_sub(1) / width) as usize;
            if place >= buckets.len() {
                buckets.resize(place + 1, None);
            }
            match &mut buckets[place] {
                None => {
                    buckets[place] = Some(Bucket {
                        low: value,
                        high: value,
                        sum: value.into(),
                        count: 1,
                    });
                }
                Some(bucket) => {
                    bucket.low = bucket.low.min(value);
                    bucket.high = bucket.high.max(value);
                    bucket.sum += f64::from(value);
                    bucket.count += 1;
                }
            }
        }
        buckets
    }
}

/// The values of neighbouring steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bucket {
    pub low: f32,
    pub high: f32,
    sum: f64,
    count: u32,
}

impl Bucket {
    pub fn mean(&self) -> f64 {
        self.sum / f64::from(self.count)
    }
}

/// All metrics of a run, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns {
    names: BTreeMap<String, usize>,
    columns: Vec<(String, Column)>,
    last_step: u32,
}

impl Columns {
    /// Takes a line of metrics, unless it is no later step's.
    pub fn take(&mut self, line: &Map<String, Value>) -> bool {
        let step = line.get("step").and_then(Value::as_u64);
        let Some(step) = step.and_then(|step| u32::try_from(step).ok()) else {
            return false;
        };
        if step <= self.last_step {
            return false;
        }
        self.last_step = step;
        let lost = line.get("nonfinite").and_then(Value::as_array);
        let is_lost = |key: &str| lost.is_some_and(|keys| keys.iter().any(|k| k == key));
        for (key, value) in line.iter().filter(|(key, _)| *key != "step") {
            let value = value.as_f64().map(|value| value as f32);
            let value = value.filter(|value| value.is_finite());
            if value.is_none() && !is_lost(key) {
                continue;
            }
            let Some(column) = self.column(key) else {
                continue;
            };
            match value {
                Some(value) => column.points.push((step, value)),
                None => {
                    column.lost_count += 1;
                    if column.lost.len() < MOST_LOST {
                        column.lost.push(step);
                    }
                }
            }
        }
        true
    }

    fn column(&mut self, key: &str) -> Option<&mut Column> {
        let place = match self.names.get(key) {
            Some(&place) => place,
            None if self.columns.len() == MOST_KEYS => return None,
            None => {
                let place = self.columns.len();
                self.names.insert(key.to_owned(), place);
                self.columns.push((key.to_owned(), Column::default()));
                place
            }
        };
        Some(&mut self.columns[place].1)
    }

    pub fn get(&self, key: &str) -> Option<&Column> {
        self.names.get(key).map(|&place| &self.columns[place].1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Column)> {
        self.columns.iter().map(|(key, column)| (&key[..], column))
    }

    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// The newest step; 0 before the first.
    pub fn last_step(&self) -> u32 {
        self.last_step
    }

    pub fn last(&self, key: &str) -> Option<f32> {
        self.get(key)?.last()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn columns(lines: &[Value]) -> Columns {
        let mut columns = Columns::default();
        for line in lines {
            columns.take(line.as_object().unwrap());
        }
        columns
    }

    #[test]
    fn lines_become_columns_and_what_is_lost_is_counted() {
        let found = columns(&[
            json!({"step": 1, "loss": 2.0, "name": "x"}),
            json!({"step": 2, "loss": null, "nonfinite": ["loss"]}),
            json!({"loss": 9.0}),
            json!({"step": 2, "loss": 9.0}),
            json!({"step": -3, "loss": 9.0}),
            json!({"step": 7, "loss": 1.0, "knn_top1": 50.0}),
        ]);
        let loss = found.get("loss").unwrap();
        assert_eq!(loss.points, [(1, 2.0), (7, 1.0)]);
        assert_eq!((&loss.lost[..], loss.lost_count), (&[2][..], 1));
        assert_eq!(found.len(), 2);
        assert_eq!(found.last_step(), 7);
        assert_eq!(loss.max(), Some((1, 2.0)));
    }

    #[test]
    fn a_bucket_keeps_its_extremes() {
        let points = (1..=1000).map(|step| (step, if step == 777 { 50.0 } else { 1.0 }));
        let column = Column {
            points: points.collect(),
            ..Column::default()
        };
        let buckets = column.buckets(100);
        assert_eq!(buckets.len(), 10);
        let seventh = buckets[7].unwrap();
        assert_eq!((seventh.low, seventh.high), (1.0, 50.0));
        assert_eq!(seventh.mean(), 1.49);
        // Steps without a value leave a gap.
        let column = Column {
            points: vec![(1, 3.0), (25, 4.0)],
            ..Column::default()
        };
        let highs: Vec<Option<f32>> = column
            .buckets(10)
            .iter()
            .map(|bucket| bucket.map(|b| b.high))
            .collect();
        assert_eq!(highs, [Some(3.0), None, Some(4.0)]);
    }

    #[test]
    fn a_spike_is_seen_beside_what_is_usual_then() {
        // It falls slowly from 100 to 1, with one value of ten times the usual.
        let usual = |step: u32| 100.0 * 0.99f32.powi(step as i32);
        let points = (1..=460).map(|step| {
            let factor = if step == 300 { 10.0 } else { 1.0 };
            (step, factor * usual(step))
        });
        let column = Column {
            points: points.collect(),
            ..Column::default()
        };
        let ratios = column.over_median(5);
        let (step, ratio) = ratios.max().unwrap();
        assert_eq!(step, 300);
        // The median of the five before is that of three steps before.
        assert!((ratio - 10.0 * 0.99f32.powi(3)).abs() < 1e-3, "{ratio}");
        assert!(ratios.points.iter().all(|&(s, r)| s == 300 || r < 1.1));
    }
}
