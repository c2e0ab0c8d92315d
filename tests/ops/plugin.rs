//! The table on real plugins: values against references, gradients against
//! central differences.

use xla_moco::graph::DType;
use xla_moco::pjrt::Buffer;

use crate::array::Array;
use crate::module::{Module, Placed};
use crate::row::Gradient;
use crate::run::Program;
use crate::support::on_each_cpu_plugin;

/// How far two numbers are apart, in units of the larger of 1 and the second.
fn distance(found: f64, expected: f64) -> f64 {
    if found == expected || found.is_nan() && expected.is_nan() {
        0.0
    } else {
        let apart = (found - expected).abs() / expected.abs().max(1.0);
        if apart.is_nan() { f64::INFINITY } else { apart }
    }
}

/// Says which elements lie further apart than `tolerance`.
fn compare(place: &str, found: &Array, expected: &Array, tolerance: f64) -> Result<(), String> {
    if found.dims != expected.dims {
        return Err(format!("{place}: {:?} for {:?}", found.dims, expected.dims));
    }
    for (i, (x, y)) in found.data.iter().zip(&expected.data).enumerate() {
        if distance(*x, *y) > tolerance {
            return Err(format!(
                "{place}: element {i} is {x}, expected {y} (all: {:?}, expected {:?})",
                found.data, expected.data
            ));
        }
    }
    Ok(())
}

/// Fails with all complaints at once.
fn complain(plugin: &str, found: impl IntoIterator<Item = Result<(), String>>) {
    let found: Vec<String> = found.into_iter().filter_map(Result::err).collect();
    assert!(found.is_empty(), "{plugin}:\n{}", found.join("\n"));
}

/// Compares every row's results with its reference.
fn check_values(plugin: &str, module: &Module, outputs: &[Array], tolerance: f64) {
    complain(
        plugin,
        module.rows.iter().flat_map(|place| {
            let expected = (place.row.reference)(&module.operands(place));
            assert_eq!(expected.len(), place.results.len(), "{}", place.row.name);
            let check = |(output, expected): (&usize, Array)| {
                compare(&place.row.name, &outputs[*output], &expected, tolerance)
            };
            place
                .results
                .iter()
                .zip(expected)
                .map(check)
                .collect::<Vec<_>>()
        }),
    );
}

/// The number whose gradient is checked: results weighted by cotangents.
fn objective(module: &Module, place: &Placed, outputs: &[Array]) -> f64 {
    let weighted = |(k, ct): &(usize, usize)| {
        let result = &outputs[place.results[*k]];
        let products = result.data.iter().zip(&module.values[*ct].data);
        products.map(|(x, ct)| x * ct).sum::<f64>()
    };
    place.cotangents.iter().map(weighted).sum()
}

/// Central differences of every row, in one array for each of its gradients.
/// Execution `n` moves element `n` of every row at once.
fn differences(module: &Module, program: &Program, buffers: &[Buffer]) -> Vec<Vec<Array>> {
    const STEP: f64 = 1e-5;
    let elements = |place: &Placed| -> Vec<(usize, usize)> {
        let each = |(g, (k, _)): (usize, &(usize, usize))| {
            (0..module.values[place.operands[*k]].data.len()).map(move |e| (g, e))
        };
        place.gradients.iter().enumerate().flat_map(each).collect()
    };
    let plans: Vec<Vec<(usize, usize)>> = module.rows.iter().map(elements).collect();
    let mut found: Vec<Vec<Array>> = module
        .rows
        .iter()
        .map(|place| {
            let empty = |(k, _): &(usize, usize)| module.values[place.operands[*k]].map(|_| 0.0);
            place.gradients.iter().map(empty).collect()
        })
        .collect();
    for n in 0..plans.iter().map(Vec::len).max().unwrap_or(0) {
        let moved = |by: f64| -> Vec<f64> {
            let mut replaced: Vec<Option<Buffer>> = buffers.iter().map(|_| None).collect();
            for (place, plan) in module.rows.iter().zip(&plans) {
                if let Some((g, element)) = plan.get(n) {
                    let input = place.operands[place.gradients[*g].0];
                    let mut array = module.values[input].clone();
                    array.data[*element] += by;
                    replaced[input] = Some(program.upload(input, &array));
                }
            }
            let inputs: Vec<&Buffer> = replaced
                .iter()
                .zip(buffers)
                .map(|(new, old)| new.as_ref().unwrap_or(old))
                .collect();
            let outputs = program.run(&inputs);
            let each = module
                .rows
                .iter()
                .map(|place| objective(module, place, &outputs));
            each.collect()
        };
        let (above, below) = (moved(STEP), moved(-STEP));
        for (r, plan) in plans.iter().enumerate() {
            if let Some((g, element)) = plan.get(n) {
                found[r][*g].data[*element] = (above[r] - below[r]) / (2.0 * STEP);
            }
        }
    }
    found
}

/// In f64: results equal the references, gradients the differences. In f32:
/// results the references, gradients those of f64.
#[test]
fn values_and_gradients_in_f64_and_f32() {
    on_each_cpu_plugin(1, |plugin, client| {
        let module = Module::new(DType::F64, DType::F32, true);
        let program = Program::new(client, &module.graph);
        let buffers: Vec<Buffer> = (0..module.values.len())
            .map(|i| program.upload(i, &module.values[i]))
            .collect();
        let exact = program.run(&buffers.iter().collect::<Vec<_>>());
        check_values(plugin, &module, &exact, 1e-11);
        let differences = differences(&module, &program, &buffers);
        complain(
            plugin,
            module
                .rows
                .iter()
                .zip(&differences)
                .flat_map(|(place, differences)| {
                    let check = |((k, output), difference): (&(usize, usize), &Array)| {
                        let stopped = matches!(place.row.gradient, Gradient::Stopped);
                        let expected = if stopped {
                            difference.map(|_| 0.0)
                        } else {
                            difference.clone()
                        };
                        let name = format!("{}, gradient of operand {k}", place.row.name);
                        compare(&name, &exact[*output], &expected, 1e-8)
                    };
                    place
                        .gradients
                        .iter()
                        .zip(differences)
                        .map(check)
                        .collect::<Vec<_>>()
                }),
        );

        let narrow = Module::new(DType::F32, DType::F32, true);
        let outputs = Program::new(client, &narrow.graph).call(&narrow.values);
        check_values(plugin, &narrow, &outputs, 1e-5);
        complain(
            plugin,
            narrow
                .rows
                .iter()
                .zip(&module.rows)
                .flat_map(|(place, wide)| {
                    let check = |((k, output), (_, same)): (&(usize, usize), &(usize, usize))| {
                        let name = format!("{}, f32 gradient of operand {k}", place.row.name);
                        compare(&name, &outputs[*output], &exact[*same], 1e-4)
                    };
                    place
                        .gradients
                        .iter()
                        .zip(&wide.gradients)
                        .map(check)
                        .collect::<Vec<_>>()
                }),
        );
    });
}

#[test]
fn values_in_bf16() {
    on_each_cpu_plugin(1, |plugin, client| {
        let module = Module::new(DType::BF16, DType::BF16, false);
        let outputs = Program::new(client, &module.graph).call(&module.values);
        check_values(plugin, &module, &outputs, 0.03);
    });
}
