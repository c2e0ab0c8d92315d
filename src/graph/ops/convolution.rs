//! Convolutions of any rank, and their gradients, which are convolutions.

use super::dot::precision;
use super::{Emission, Operation, Vjp, arity, bracketed, check_axes, i64s};
use crate::graph::{Builder, Result, Shape, Value};

/// Which axis of each tensor means what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvDims {
    /// Of the input: batch, feature, then the spatial axes.
    pub input: Vec<usize>,
    /// Of the filter: output feature, input feature, then the spatial axes.
    pub filter: Vec<usize>,
    /// Of the result: batch, feature, then the spatial axes.
    pub output: Vec<usize>,
}

impl ConvDims {
    /// Pictures as batch, height, width, channel; filters as height, width,
    /// input channel, output channel.
    pub fn nhwc() -> Self {
        Self {
            input: vec![0, 3, 1, 2],
            filter: vec![3, 2, 0, 1],
            output: vec![0, 3, 1, 2],
        }
    }

    /// Pictures as batch, channel, height, width; filters as output channel,
    /// input channel, height, width: PyTorch's order.
    pub fn nchw() -> Self {
        let order = vec![0, 1, 2, 3];
        Self {
            input: order.clone(),
            filter: order.clone(),
            output: order,
        }
    }

    /// The number of spatial axes.
    fn spatial(&self) -> usize {
        self.input.len().saturating_sub(2)
    }

    /// As `#stablehlo.conv` writes it: `[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]`.
    fn mlir(&self) -> String {
        let axes = |order: &[usize], outer: &str, inner: &str| {
            let mut names = vec![String::new(); order.len()];
            for (place, axis) in order.iter().enumerate() {
                names[*axis] = match place {
                    0 => outer.into(),
                    1 => inner.into(),
                    _ => (place - 2).to_string(),
                };
            }
            bracketed(names)
        };
        format!(
            "{}x{}->{}",
            axes(&self.input, "b", "f"),
            axes(&self.filter, "o", "i"),
            axes(&self.output, "b", "f")
        )
    }
}

/// Slides a filter over an input (without turning it round: a correlation,
/// as is usual in the field).
///
/// Operands: input and filter. Every list has one entry for each spatial
/// axis.
#[derive(Clone, Debug)]
pub struct Convolution {
    pub dims: ConvDims,
    pub strides: Vec<usize>,
    /// Zeros before and after the input; a negative number crops.
    pub padding: Vec<(i64, i64)>,
    /// Distance of the input's elements: above 1, zeros lie between them.
    pub input_dilation: Vec<usize>,
    /// Distance of the filter's elements.
    pub filter_dilation: Vec<usize>,
    /// Features in as many groups, each seen only by its share of the filters.
    pub feature_groups: usize,
    /// Samples in as many groups, each seen only by its share of the filters.
    pub batch_groups: usize,
}

impl Convolution {
    /// Stride 1, no padding, no dilation, one group.
    pub fn new(dims: ConvDims) -> Self {
        let n = dims.spatial();
        Self {
            strides: vec![1; n],
            padding: vec![(0, 0); n],
            input_dilation: vec![1; n],
            filter_dilation: vec![1; n],
            feature_groups: 1,
            batch_groups: 1,
            dims,
        }
    }

    /// The lengths along spatial axis `i` that the arithmetic of windows is
    /// about: of the input and of the filter, both dilated.
    fn lengths(&self, i: usize, input: &Shape, filter: &Shape) -> (i64, i64) {
        let input = input.dims()[self.dims.input[2 + i]];
        let filter = filter.dims()[self.dims.filter[2 + i]];
        (
            dilated(input, self.input_dilation[i]),
            dilated(filter, self.filter_dilation[i]),
        )
    }

    fn check_attributes(&self, x: &Shape, w: &Shape) -> std::result::Result<(), String> {
        let n = self.dims.spatial();
        for (order, rank, what) in [
            (&self.dims.input, x.rank(), "input axis"),
            (&self.dims.filter, w.rank(), "filter axis"),
            (&self.dims.output, n + 2, "output axis"),
        ] {
            if rank < 2 || order.len() != rank || rank != n + 2 {
                return Err(format!("{what} numbers {order:?} for rank {rank}"));
            }
            check_axes(order, rank, what)?;
        }
        for (name, list) in [
            ("strides", &self.strides),
            ("input dilations", &self.input_dilation),
            ("filter dilations", &self.filter_dilation),
        ] {
            if list.len() != n || list.contains(&0) {
                return Err(format!("{name} {list:?} for {n} spatial axes"));
            }
        }
        if self.padding.len() != n {
            return Err(format!("padding {:?} for {n} spatial axes", self.padding));
        }
        Ok(())
    }

    fn check_groups(&self, x: &Shape, w: &Shape) -> std::result::Result<(), String> {
        let (batch, features) = (x.dims()[self.dims.input[0]], x.dims()[self.dims.input[1]]);
        let (filters, depth) = (w.dims()[self.dims.filter[0]], w.dims()[self.dims.filter[1]]);
        let (by_feature, by_batch) = (self.feature_groups, self.batch_groups);
        if by_feature == 0 || by_batch == 0 || by_feature > 1 && by_batch > 1 {
            return Err(format!(
                "{by_feature} feature groups and {by_batch} batch groups"
            ));
        }
        if depth * by_feature != features {
            return Err(format!(
                "{features} input features in {by_feature} groups for filters that take {depth}"
            ));
        }
        if !filters.is_multiple_of(by_feature * by_batch) || !batch.is_multiple_of(by_batch) {
            return Err(format!(
                "{filters} filters and {batch} samples do not divide into {by_feature} feature and {by_batch} batch groups"
            ));
        }
        Ok(())
    }

    /// The cotangent of the input: each filter, turned round, spread from
    /// every place of the result that it was summed into. Strides and input
    /// dilation change places.
    fn input_ct(&self, rule: &Vjp<'_>) -> Result<Value> {
        let (b, x, w) = (rule.b, rule.operands[0], rule.operands[1]);
        let ct = b.convert(rule.ct(), x.dtype())?;
        let groups = self.feature_groups.max(self.batch_groups);
        // Each group's filters now take that group's result features, so the
        // group moves from the filters' outputs to their inputs.
        let [out, depth] = [self.dims.filter[0], self.dims.filter[1]];
        let w = move_group(b, w, groups, out, depth)?;
        let w = match &self.dims.filter[2..] {
            [] => w,
            spatial => b.reverse(w, spatial)?,
        };
        let padding = (0..self.dims.spatial())
            .map(|i| {
                let (input, filter) = self.lengths(i, &x.shape, &rule.operands[1].shape);
                let ct = dilated(ct.dim(self.dims.output[2 + i]), self.strides[i]);
                let low = filter - 1 - self.padding[i].0;
                (low, input + filter - 1 - ct - low)
            })
            .collect();
        let op = Convolution {
            dims: ConvDims {
                input: self.dims.output.clone(),
                filter: swapped(&self.dims.filter),
                output: self.dims.input.clone(),
            },
            strides: self.input_dilation.clone(),
            padding,
            input_dilation: self.strides.clone(),
            filter_dilation: self.filter_dilation.clone(),
            feature_groups: groups,
            batch_groups: 1,
        };
        let dx = b.convolution(op, ct, w)?;
        // A batch group was a share of the samples, not of the features.
        move_group(
            b,
            dx,
            self.batch_groups,
            self.dims.input[1],
            self.dims.input[0],
        )
    }

    /// The cotangent of the filter: the input summed against the result's
    /// cotangent, with samples as features. Strides and filter dilation
    /// change places, and so do feature and batch groups.
    fn filter_ct(&self, rule: &Vjp<'_>) -> Result<Value> {
        let (b, x, w) = (rule.b, rule.operands[0], rule.operands[1]);
        let ct = b.convert(rule.ct(), w.dtype())?;
        let padding = (0..self.dims.spatial())
            .map(|i| {
                let (input, filter) = self.lengths(i, &x.shape, &w.shape);
                let ct = dilated(ct.dim(self.dims.output[2 + i]), self.strides[i]);
                let low = self.padding[i].0;
                (low, filter + ct - 1 - input - low)
            })
            .collect();
        let op = Convolution {
            dims: ConvDims {
                input: swapped(&self.dims.input),
                filter: swapped(&self.dims.output),
                output: swapped(&self.dims.filter),
            },
            strides: self.filter_dilation.clone(),
            padding,
            input_dilation: self.input_dilation.clone(),
            filter_dilation: self.strides.clone(),
            feature_groups: self.batch_groups,
            batch_groups: self.feature_groups,
        };
        b.convolution(op, x, ct)
    }
}

/// The length of `n` elements that lie `distance` apart.
fn dilated(n: usize, distance: usize) -> i64 {
    if n == 0 {
        0
    } else {
        ((n - 1) * distance + 1) as i64
    }
}

/// The order with its first two entries exchanged.
fn swapped(order: &[usize]) -> Vec<usize> {
    let mut order = order.to_vec();
    order.swap(0, 1);
    order
}

/// Takes the outer part of axis `from`, of size `groups`, and makes it the
/// outer part of axis `to`.
fn move_group(b: &Builder, x: Value, groups: usize, from: usize, to: usize) -> Result<Value> {
    if groups == 1 {
        return Ok(x);
    }
    let mut split = x.dims().to_vec();
    split[from] /= groups;
    split.insert(from, groups);
    // Axes of the split tensor but for the group, which then goes before
    // `to`.
    let mut order: Vec<usize> = (0..split.len()).filter(|axis| *axis != from).collect();
    order.insert(to, from);
    let mut joined = x.dims().to_vec();
    joined[from] /= groups;
    joined[to] *= groups;
    let x = b.reshape(x, &split)?;
    b.reshape(b.transpose(x, &order)?, &joined)
}

impl Operation for Convolution {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x, w] = arity(operands)?;
        if x.dtype != w.dtype {
            return Err(format!("element types {} and {} differ", x.dtype, w.dtype));
        }
        self.check_attributes(&x, &w)?;
        self.check_groups(&x, &w)?;
        let mut dims = vec![0; x.rank()];
        dims[self.dims.output[0]] = x.dims()[self.dims.input[0]] / self.batch_groups;
        dims[self.dims.output[1]] = w.dims()[self.dims.filter[0]];
        for (i, (low, high)) in self.padding.iter().enumerate() {
            let (input, filter) = self.lengths(i, &x, &w);
            let room = input + low + high - filter;
            if room < 0 || filter == 0 {
                return Err(format!(
                    "a filter of length {filter} on spatial axis {i}, which has length {} with its padding",
                    input + low + high
                ));
            }
            dims[self.dims.output[2 + i]] = room as usize / self.strides[i] + 1;
        }
        Ok(vec![x.with_dims(&dims)])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        Ok(vec![
            rule.when(0, || self.input_ct(rule))?,
            rule.when(1, || self.filter_ct(rule))?,
        ])
    }

    fn emit(&self, operands: &[Shape], _: &[Shape]) -> Emission<'_> {
        let n = self.padding.len();
        let padding = self
            .padding
            .iter()
            .map(|(low, high)| format!("[{low}, {high}]"));
        let padding = if n == 0 {
            "dense<> : tensor<0x2xi64>".into()
        } else {
            format!("dense<{}> : tensor<{n}x2xi64>", bracketed(padding))
        };
        let mut attributes = vec![
            ("window_strides", i64s(&self.strides)),
            ("padding", padding),
            ("lhs_dilation", i64s(&self.input_dilation)),
            ("rhs_dilation", i64s(&self.filter_dilation)),
            (
                "dimension_numbers",
                format!("#stablehlo.conv<{}>", self.dims.mlir()),
            ),
            (
                "feature_group_count",
                format!("{} : i64", self.feature_groups),
            ),
            ("batch_group_count", format!("{} : i64", self.batch_groups)),
        ];
        attributes.extend(precision(operands[0].dtype));
        Emission::op("stablehlo.convolution", attributes)
    }

    /// Products with padding count, products with the zeros between dilated
    /// elements do not: so a gradient counts as much as its convolution.
    fn flops(&self, operands: &[Shape], results: &[Shape]) -> u64 {
        let (w, y) = (&operands[1], &results[0]);
        let spatial: u64 = (0..self.dims.spatial())
            .map(|i| {
                let places = y.dims()[self.dims.output[2 + i]] as i64;
                let taps = w.dims()[self.dims.filter[2 + i]] as i64;
                let hits = |place: i64| {
                    let first = place * self.strides[i] as i64 - self.padding[i].0;
                    (0..taps)
                        .map(|tap| first + tap * self.filter_dilation[i] as i64)
                        .filter(|at| at.rem_euclid(self.input_dilation[i] as i64) == 0)
                        .count() as u64
                };
                (0..places).map(hits).sum::<u64>()
            })
            .product();
        let rest = y.dims()[self.dims.output[0]]
            * y.dims()[self.dims.output[1]]
            * w.dims()[self.dims.filter[1]];
        2 * rest as u64 * spatial
    }
}

impl Builder {
    /// Slides `filter` over `x`; start from [`Convolution::new`].
    pub fn convolution(&self, op: Convolution, x: Value, filter: Value) -> Result<Value> {
        self.push1(op, &[x, filter])
    }
}
