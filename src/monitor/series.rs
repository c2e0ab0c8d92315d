//! Windows of past values, and what is usual in them.

use std::collections::VecDeque;

/// The newest finite values of a series.
#[derive(Clone, Debug)]
pub struct Window {
    values: VecDeque<f64>,
    size: usize,
}

impl Window {
    pub fn new(size: usize) -> Self {
        Self {
            values: VecDeque::with_capacity(size),
            size,
        }
    }

    /// Passes over what is not finite.
    pub fn push(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        if self.values.len() == self.size {
            self.values.pop_front();
        }
        self.values.push_back(value);
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_full(&self) -> bool {
        self.values.len() == self.size
    }

    pub fn clear(&mut self) {
        self.values.clear();
    }

    pub fn mean(&self) -> Option<f64> {
        let sum: f64 = self.values.iter().sum();
        (!self.values.is_empty()).then(|| sum / self.values.len() as f64)
    }

    pub fn median(&self) -> Option<f64> {
        median(self.values.iter().copied())
    }

    /// How far values usually lie from the median, as a standard deviation:
    /// the median distance over that of a normal distribution.
    pub fn scatter(&self) -> Option<f64> {
        let middle = self.median()?;
        let distances = self.values.iter().map(|value| (value - middle).abs());
        median(distances).map(|distance| 1.4826 * distance)
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let (_, found, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*found)
}

#[cfg(test)]
mod tests {
    use super::Window;

    #[test]
    fn one_outlier_moves_neither_median_nor_scatter() {
        let mut window = Window::new(5);
        for value in [9.0, 1.0, 2.0, f64::NAN, 3.0, 4.0, 1000.0] {
            window.push(value);
        }
        // 9 has left, NaN never came.
        assert_eq!(window.median(), Some(3.0));
        assert_eq!(window.scatter(), Some(1.4826));
        assert!(window.is_full());
        assert_eq!(Window::new(3).median(), None);
    }
}
