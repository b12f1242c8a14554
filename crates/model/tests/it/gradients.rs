//! Gradients of the whole decoder by finite differences in random directions, for every family and for adapters.

use crate::{Batch, decoder, device, workspace};
use compute::Buffer;
use model::testing::random_values;
use model::{
    Adapter, AdapterConfig, AdapterInTraining, Architecture, DropoutPlan, Gradients, ModelConfig,
    ParameterKind, Projection, QueryKeyNorm, RouterTraining, TrainingWorkspace,
};

fn upload(values: &[f32]) -> Buffer {
    device().upload(values.to_vec())
}

fn read(values: &Buffer) -> Vec<f32> {
    device().read(values.at(..))
}

/// Compares gradient · direction with the difference of the losses along the direction, for each tensor by itself.
fn check(
    what: &str,
    values: &[f32],
    spans: &[(String, std::ops::Range<usize>)],
    gradient: &[f32],
    mut loss: impl FnMut(&[f32]) -> f64,
) {
    for (index, (name, span)) in spans.iter().enumerate() {
        let direction: Vec<f32> = span
            .clone()
            .map(|i| gradient[i] + 1e-3 * compute::random::normal(index as u64, i as u64) as f32)
            .collect();
        let norm = direction.iter().map(|d| (*d as f64).powi(2)).sum::<f64>().sqrt();
        let step = 3e-3 / norm;
        let mut along = |sign: f64| {
            let mut moved = values.to_vec();
            for (i, d) in span.clone().zip(&direction) {
                moved[i] += (sign * step * *d as f64) as f32;
            }
            loss(&moved)
        };
        let expected = (along(1.0) - along(-1.0)) / (2.0 * step);
        let found: f64 = span.clone().zip(&direction).map(|(i, d)| gradient[i] as f64 * *d as f64).sum();
        assert!(
            (found - expected).abs() < 2e-2 * expected.abs().max(1e-2),
            "{what}, {name}: {found} but differences say {expected}"
        );
    }
}

/// Names and places of what has a gradient.
fn spans(table: &model::ParameterTable) -> Vec<(String, std::ops::Range<usize>)> {
    let entries = table.entries().iter().filter(|parameter| parameter.kind != ParameterKind::RouterBias);
    entries.map(|parameter| (parameter.name.clone(), parameter.span.clone())).collect()
}

fn family(architecture: Architecture) -> ModelConfig {
    if architecture == Architecture::Dots1 {
        return ModelConfig::tiny_mixture_for_tests(40);
    }
    let mut config = ModelConfig::tiny_for_tests(40);
    config.architecture = architecture;
    config.tie_embeddings = architecture != Architecture::Llama;
    for layer in &mut config.layers {
        layer.attention.norm = match architecture {
            Architecture::Qwen3 => QueryKeyNorm::Head,
            _ => QueryKeyNorm::None,
        };
        layer.attention.bias = architecture == Architecture::Qwen2;
    }
    config
}

/// Random values; the biases of routers are so far apart that the choice of experts, which has no derivative, stays the same.
fn settled_values(config: &ModelConfig) -> Vec<f32> {
    let mut values = random_values(config, 5);
    let decoder = decoder(config);
    for parameter in decoder.table().entries() {
        if parameter.kind == ParameterKind::RouterBias {
            for (expert, place) in parameter.span.clone().enumerate() {
                values[place] = (expert * 5 % parameter.span.len()) as f32;
            }
        }
    }
    values
}

#[test]
fn model_gradients_agree_with_finite_differences() {
    for architecture in [Architecture::Qwen3, Architecture::Qwen2, Architecture::Llama, Architecture::Dots1] {
        for plan in [None, Some(DropoutPlan { probability: 0.2, seed: 3, step: 8 })] {
            let config = family(architecture);
            let decoder = decoder(&config);
            let values = settled_values(&config);
            let batch = Batch::new(1, 40, &[1, 9, 17]);
            let mut workspace = workspace(&config, 27);
            let mut gradient = device().zeros(values.len());
            let gradients = Gradients::Model(&mut gradient);
            let packed = batch.packed();
            decoder.loss(&upload(&values), None, packed, plan, 1.0, gradients, &mut workspace).unwrap();
            let what = format!("{architecture:?} {plan:?}");
            check(&what, &values, &spans(decoder.table()), &read(&gradient), |values| {
                let values = upload(values);
                decoder.loss(&values, None, packed, plan, 1.0, Gradients::None, &mut workspace).unwrap()
            });
        }
    }
}

#[test]
fn adapter_gradients_agree_with_finite_differences() {
    check_adapter(&ModelConfig::tiny_for_tests(40));
    check_adapter(&ModelConfig::tiny_mixture_for_tests(40));
}

fn check_adapter(config: &ModelConfig) {
    let decoder = decoder(config);
    let values = settled_values(config);
    let shape = AdapterConfig { rank: 3, alpha: 6.0, targets: Projection::ALL.to_vec() };
    let mut adapter = Adapter::new(config, shape, 2).unwrap();
    for (i, value) in adapter.values.iter_mut().enumerate() {
        *value = 0.2 * compute::random::normal(77, i as u64) as f32;
    }
    let batch = Batch::new(1, 40, &[4, 20]);
    let mut workspace = workspace(config, 24);
    let values = upload(&values);
    let mut gradient = device().zeros(adapter.values.len());
    let mut loss = |adapter_values: &[f32], gradients: Gradients| {
        let adapter = AdapterInTraining { adapter: &adapter, values: &upload(adapter_values) };
        decoder.loss(&values, Some(adapter), batch.packed(), None, 1.0, gradients, &mut workspace).unwrap()
    };
    loss(&adapter.values, Gradients::Adapter(&mut gradient));
    let table = spans(adapter.table());
    check("adapter", &adapter.values, &table, &read(&gradient), |moved| loss(moved, Gradients::None));
}

#[test]
fn gradients_add_up_over_batches_and_scale() {
    let config = ModelConfig::tiny_for_tests(40);
    let decoder = decoder(&config);
    let values = random_values(&config, 5);
    let batch = Batch::new(1, 40, &[12]);
    let mut workspace = workspace(&config, 12);
    let values = upload(&values);
    let mut run = |scale, times| {
        let mut gradient = device().zeros(values.len());
        for _ in 0..times {
            let gradients = Gradients::Model(&mut gradient);
            decoder.loss(&values, None, batch.packed(), None, scale, gradients, &mut workspace).unwrap();
        }
        read(&gradient)
    };
    let (once, twice) = (run(2.0, 1), run(1.0, 2));
    let norm = |x: &[f32]| x.iter().map(|v| (*v as f64).powi(2)).sum::<f64>().sqrt();
    let difference: Vec<f32> = once.iter().zip(&twice).map(|(a, b)| a - b).collect();
    assert!(norm(&difference) < 1e-5 * norm(&once));
}

#[test]
fn batches_out_of_range_are_refused() {
    let config = ModelConfig::tiny_for_tests(40);
    let decoder = decoder(&config);
    let values = random_values(&config, 5);
    let mut workspace = workspace(&config, 12);
    let values = upload(&values);
    let mut refuse = |change: &dyn Fn(&mut Batch)| {
        let mut batch = Batch::new(1, 40, &[5, 7]);
        change(&mut batch);
        decoder
            .loss(&values, None, batch.packed(), None, 1.0, Gradients::None, &mut workspace)
            .unwrap_err()
            .to_string()
    };
    assert!(refuse(&|batch| batch.tokens[3] = 40).contains("token 40"));
    assert!(refuse(&|batch| batch.targets[3] = 99).contains("token 99"));
    assert!(refuse(&|batch| batch.positions[3] = 512).contains("position 512"));
    assert!(refuse(&|batch| batch.documents[1] = 6..12).contains("6..12"));
    assert!(refuse(&|batch| batch.documents.truncate(1)).contains("token 5 of 12"));
    assert!(refuse(&|batch| batch.targets.truncate(11)).contains("11 targets"));
}

#[test]
fn neither_threads_nor_recomputation_change_a_bit() {
    // Wide and long enough that products and blocks of rows are really shared out.
    let mut config = ModelConfig::tiny_for_tests(300);
    config.hidden_size = 128;
    let layer = config.layers[0];
    config.layers = vec![layer; 3];
    same_bits(&config);
    let mut config = ModelConfig::tiny_mixture_for_tests(300);
    config.hidden_size = 128;
    same_bits(&config);
}

fn same_bits(config: &ModelConfig) {
    let decoder = decoder(config).with_routers(RouterTraining { z_loss: 0.01, ..RouterTraining::default() });
    let values = upload(&random_values(config, 5));
    let batch = Batch::new(1, 300, &[1, 40, 200, 271]);
    let plan = Some(DropoutPlan { probability: 0.1, seed: 3, step: 8 });
    let run = |threads, recomputes| {
        let device = compute::Device::cpu(threads).unwrap();
        let mut workspace = TrainingWorkspace::new(&device, config, 512, recomputes);
        let mut gradient = device.zeros(values.len());
        let mut loss = 0.0;
        // Twice: a workspace that has been used gives the bits of a fresh one.
        for _ in 0..2 {
            device.fill(gradient.at_mut(..), 0.0);
            let gradients = Gradients::Model(&mut gradient);
            loss = decoder.loss(&values, None, batch.packed(), plan, 0.5, gradients, &mut workspace).unwrap();
        }
        (loss, read(&gradient), workspace.take_expert_loads())
    };
    let expected = run(1, false);
    let mixtures = config.layers.iter().filter_map(|layer| layer.feed_forward.mixture);
    let pairs: Vec<u64> = mixtures.map(|mixture| 2 * 512 * mixture.experts_per_token as u64).collect();
    let loads: Vec<u64> = expected.2.iter().map(|loads| loads.iter().sum()).collect();
    assert_eq!(loads, pairs, "two passes of 512 tokens");
    for (threads, recomputes) in [(1, true), (2, false), (2, true), (3, false)] {
        assert!(run(threads, recomputes) == expected, "{threads} threads, recomputation {recomputes}");
    }
}

#[test]
fn the_z_loss_pulls_at_the_routers_alone_and_grows_with_its_coefficient() {
    let config = ModelConfig::tiny_mixture_for_tests(40);
    let values = random_values(&config, 5);
    let batch = Batch::new(1, 40, &[30]);
    let run = |z_loss| {
        let mut gradient = device().zeros(values.len());
        let (gradients, mut workspace) = (Gradients::Model(&mut gradient), workspace(&config, 30));
        let decoder = decoder(&config).with_routers(RouterTraining { z_loss, ..RouterTraining::default() });
        let parameters = upload(&values);
        let loss = decoder.loss(&parameters, None, batch.packed(), None, 1.0, gradients, &mut workspace);
        (loss.unwrap(), read(&gradient))
    };
    let [(loss, none), (same_loss, once), (_, twice)] = [run(0.0), run(0.5), run(1.0)];
    assert_eq!(loss, same_loss);
    // The last layer's router sees nothing else of the z-loss than its own logits.
    let table = decoder(&config).table().clone();
    let router = table.find("model.layers.2.mlp.gate.weight").unwrap().span.clone();
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| (v as f64).powi(2)).sum::<f64>().sqrt();
    let pull = norm(&mut router.clone().map(|i| once[i] - none[i]));
    let rest = norm(&mut router.map(|i| (twice[i] - none[i]) - 2.0 * (once[i] - none[i])));
    assert!(pull > 1e-2 && rest < 1e-4 * pull, "{pull} {rest}");
    let head = table.find("model.layers.2.mlp.shared_experts.down_proj.weight").unwrap().span.clone();
    assert!(none[head.clone()] == once[head], "what lies above the router has no part in it");
}

#[test]
fn biases_move_towards_equal_loads() {
    let config = ModelConfig::tiny_mixture_for_tests(40);
    let decoder = decoder(&config).with_routers(RouterTraining { bias_update: 0.25, z_loss: 0.0 });
    let values = random_values(&config, 5);
    let mut parameters = upload(&values);
    let loads = [vec![3, 1, 2, 2, 2, 2, 2, 2], vec![0, 0, 0, 0, 0, 0, 0, 16]];
    decoder.balance_experts(device(), &mut parameters, &loads);
    let moved = read(&parameters);
    let bias = |layer: usize| {
        let name = format!("model.layers.{layer}.mlp.gate.e_score_correction_bias");
        let span = decoder.table().find(&name).unwrap().span.clone();
        span.map(|i| moved[i] - values[i]).map(|step| (step * 4.0).round()).collect::<Vec<f32>>()
    };
    assert_eq!(bias(1), [-1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(bias(2), [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1.0]);
    assert_eq!(moved.iter().zip(&values).filter(|(a, b)| a != b).count(), 2 + 8);
}
