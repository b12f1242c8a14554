//! Operations that span threads: against scalar twins and finite differences, with the same bits on 1, 2 and 3 threads.

use super::{Attention, AttentionSums, Device, LossGradients, MomentFormat, Moments, Rule, Stretch};
use crate::attention::AttentionShape;
use crate::cross_entropy::NO_TARGET;
use crate::dropout::Dropout;
use crate::muon::MuonStep;
use crate::optimiser::AdamWStep;
use crate::rotary::{HeadSpan, RotaryTable};
use crate::testing::{check_gradient, normal_numbers, same_on_every_path, weighted_sum};
use std::ops::Range;

/// Runs `work` on devices of 1, 2 and 3 threads, demands the same bits from all, and returns them.
fn on_any_threads<T: PartialEq + std::fmt::Debug>(work: impl Fn(&Device) -> T) -> T {
    let expected = work(&Device::cpu(1).unwrap());
    for threads in [2, 3] {
        assert_eq!(work(&Device::cpu(threads).unwrap()), expected, "{threads} threads");
    }
    expected
}

const SHAPE: AttentionShape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 6 };

fn attention(
    device: &Device,
    documents: &[Range<usize>],
    [queries, keys, fused]: [&[f32]; 3],
    output_gradient: Option<&[f32]>,
) -> [Vec<f32>; 4] {
    let tokens = queries.len() / SHAPE.query_width();
    let upload = |x: &[f32]| device.upload(x.to_vec());
    let (q, k, f) = (upload(queries), upload(keys), upload(fused));
    let mut output = device.zeros(queries.len());
    let mut sums = AttentionSums::new(device, 4, tokens);
    let input = Attention { shape: SHAPE, documents, queries: q.at(..), keys: k.at(..), fused: f.at(..) };
    device.attention(input, output.at_mut(..), &mut sums);
    let (mut dq, mut dk, mut df) =
        (upload(&vec![9.0; q.len()]), upload(&vec![9.0; k.len()]), device.zeros(f.len()));
    if let Some(dy) = output_gradient {
        let dy = upload(dy);
        device.attention_backward(
            input,
            output.at(..),
            dy.at(..),
            &sums,
            dq.at_mut(..),
            dk.at_mut(..),
            df.at_mut(..),
        );
    }
    [output, dq, dk, df].map(|buffer| device.read(buffer.at(..)))
}

/// The scalar twin, in double precision.
fn attention_twin(documents: &[Range<usize>], [queries, keys, fused]: [&[f32]; 3]) -> Vec<f64> {
    let mut output = vec![0.0; queries.len()];
    for document in documents {
        for i in document.clone() {
            for head in 0..4 {
                let score = |j: usize| {
                    let products = (0..6).map(|d| {
                        queries[i * 24 + head * 6 + d] as f64 * keys[j * 12 + head / 2 * 6 + d] as f64
                    });
                    products.sum::<f64>() / 6f64.sqrt()
                };
                let scores: Vec<f64> = (document.start..=i).map(score).collect();
                let sum: f64 = scores.iter().map(|s| s.exp()).sum();
                for (j, score) in (document.start..).zip(&scores) {
                    for d in 0..6 {
                        output[i * 24 + head * 6 + d] +=
                            score.exp() / sum * fused[j * 48 + 36 + head / 2 * 6 + d] as f64;
                    }
                }
            }
        }
    }
    output
}

#[test]
fn attention_agrees_with_its_scalar_twin_and_keeps_documents_apart() {
    for documents in [vec![0..1, 1..2], vec![0..7, 7..9], vec![0..60, 60..61, 61..175]] {
        let tokens = documents.last().unwrap().end;
        let (q, k, f) =
            (normal_numbers(1, tokens * 24), normal_numbers(2, tokens * 12), normal_numbers(3, tokens * 48));
        let [output, ..] = on_any_threads(|device| attention(device, &documents, [&q, &k, &f], None));
        for (got, expected) in output.iter().zip(attention_twin(&documents, [&q, &k, &f])) {
            assert!((*got as f64 - expected).abs() < 1e-5, "{documents:?}: {got} {expected}");
        }
        let device = Device::cpu(1).unwrap();
        same_on_every_path(|| attention(&device, &documents, [&q, &k, &f], None));
    }
}

#[test]
fn attention_backward_agrees_with_finite_differences() {
    let documents = [0..3, 3..58];
    let (q, k, f) = (normal_numbers(1, 58 * 24), normal_numbers(2, 58 * 12), normal_numbers(3, 58 * 48));
    let dy = normal_numbers(4, 58 * 24);
    let [_, dq, dk, df] = on_any_threads(|device| attention(device, &documents, [&q, &k, &f], Some(&dy)));
    let device = Device::cpu(1).unwrap();
    let loss = |q: &[f32], k: &[f32], f: &[f32]| {
        weighted_sum(&attention(&device, &documents, [q, k, f], None)[0], &dy)
    };
    check_gradient("queries", &q, &dq, |q| loss(q, &k, &f));
    check_gradient("keys", &k, &dk, |k| loss(&q, k, &f));
    check_gradient("values", &f, &df, |f| loss(&q, &k, f));
    same_on_every_path(|| attention(&device, &documents, [&q, &k, &f], Some(&dy)));
}

/// (losses, gradient by the hidden rows, gradient by the table)
fn cross_entropy(
    device: &Device,
    hidden: &[f32],
    weight: &[f32],
    targets: &[u32],
) -> (Vec<f64>, Vec<f32>, Vec<f32>) {
    let (h, w) = (device.upload(hidden.to_vec()), device.upload(weight.to_vec()));
    let t = device.upload(targets.to_vec());
    let (mut losses, mut dh, mut dw) =
        (device.zeros(targets.len()), device.upload(vec![5.0; h.len()]), device.zeros(w.len()));
    let gradients = LossGradients { scale: 1.0, hidden: dh.at_mut(..), weight: Some(dw.at_mut(..)) };
    device.projection_cross_entropy(h.at(..), w.at(..), 10, t.at(..), losses.at_mut(..), Some(gradients));
    (device.read(losses.at(..)), device.read(dh.at(..)), device.read(dw.at(..)))
}

#[test]
fn cross_entropy_and_its_gradients_are_right() {
    let (hidden, weight) = (normal_numbers(1, 5 * 10), normal_numbers(2, 23 * 10));
    let targets = [3, NO_TARGET, 22, 0, 7];
    let (losses, dh, dw) = on_any_threads(|device| cross_entropy(device, &hidden, &weight, &targets));
    for (row, (&target, loss)) in targets.iter().zip(&losses).enumerate() {
        let logit =
            |v: usize| (0..10).map(|d| hidden[row * 10 + d] as f64 * weight[v * 10 + d] as f64).sum::<f64>();
        let expected = match target {
            NO_TARGET => 0.0,
            _ => (0..23).map(|v| logit(v).exp()).sum::<f64>().ln() - logit(target as usize),
        };
        assert!((loss - expected).abs() < 1e-4, "row {row}: {loss} {expected}");
    }
    let device = Device::cpu(1).unwrap();
    let total = |hidden: &[f32], weight: &[f32]| {
        cross_entropy(&device, hidden, weight, &targets).0.iter().sum::<f64>()
    };
    check_gradient("hidden", &hidden, &dh, |hidden| total(hidden, &weight));
    check_gradient("weight", &weight, &dw, |weight| total(&hidden, weight));
    same_on_every_path(|| cross_entropy(&device, &hidden, &weight, &targets));
}

#[test]
fn rows_and_sums_have_the_same_bits_on_any_number_of_threads() {
    const TOKENS: usize = 517;
    const WIDTH: usize = 80;
    let span = HeadSpan { row_stride: 2 * WIDTH, first: WIDTH, heads: 5, head_dim: 16 };
    let table = RotaryTable::new(TOKENS, 16, 10_000.0);
    let x = normal_numbers(1, TOKENS * WIDTH);
    let wide = normal_numbers(2, TOKENS * 2 * WIDTH);
    let tokens: Vec<u32> = (0..TOKENS as u32).map(|i| i * 7 % 23).collect();
    on_any_threads(|device| {
        let (x, wide, weight) =
            (device.upload(x.clone()), device.upload(wide.clone()), device.upload(normal_numbers(3, WIDTH)));
        let (tokens, positions) =
            (device.upload(tokens.clone()), device.upload((0..TOKENS as u32).collect::<Vec<_>>()));
        let mut found = Vec::new();
        let (mut y, mut r) = (device.zeros(x.len()), device.zeros(TOKENS));
        device.rms_norm(x.at(..), weight.at(..), 1e-6, y.at_mut(..), r.at_mut(..));
        let (mut dx, mut dw) = (device.zeros(x.len()), device.zeros(WIDTH));
        let wanted = Some(dw.at_mut(..));
        device.rms_norm_backward(y.at(..), x.at(..), weight.at(..), r.at(..), dx.at_mut(..), wanted);
        device.add_bias(dx.at_mut(..), weight.at(..));
        device.add_bias_backward(dx.at(..), dw.at_mut(..));
        found.extend([device.read(y.at(..)), device.read(dx.at(..)), device.read(dw.at(..))]);

        let norm = Some((weight.at(..16), 1e-6));
        let mut r = device.zeros(TOKENS * 5);
        device.normalise_and_rotate(
            wide.at(..),
            span,
            norm,
            &table,
            positions.at(..),
            y.at_mut(..),
            r.at_mut(..),
        );
        let (mut dx, mut dw) = (device.zeros(wide.len()), device.zeros(16));
        let (input, positions) = (wide.at(..), positions.at(..));
        device.normalise_and_rotate_backward(
            y.at_mut(..),
            input,
            span,
            norm,
            &table,
            positions,
            r.at(..),
            dx.at_mut(..),
            Some(dw.at_mut(..)),
        );
        found.extend([device.read(y.at(..)), device.read(dx.at(..)), device.read(dw.at(..))]);

        device.swiglu(wide.at(..), WIDTH, y.at_mut(..));
        device.swiglu_backward(y.at(..), wide.at(..), WIDTH, dx.at_mut(..));
        device.add_with_dropout(x.at(..), wide.at(..x.len()), Dropout::new(9, 0.3), 5, y.at_mut(..));
        device.dropout(y.at_mut(..), Dropout::new(8, 0.3), 17);
        found.extend([device.read(y.at(..)), device.read(dx.at(..))]);

        let mut gradient = device.zeros(23 * WIDTH);
        device.embedding_backward(y.at(..), WIDTH, tokens.at(..), gradient.at_mut(..));
        device.embedding(gradient.at(..), WIDTH, tokens.at(..), y.at_mut(..));
        device.average(y.at_mut(..), x.at(..), 0.25);
        found.push(device.read(y.at(..)));
        let mut norm = device.zeros(1);
        device.squared_norm(y.at(..), norm.at_mut(..));
        (found, device.read(norm.at(..)))
    });
}

#[test]
fn optimisers_move_each_stretch_by_its_rule() {
    let stretches = [
        Stretch { span: 0..40, rule: Rule::AdamW { decays: true } },
        Stretch { span: 40..88, rule: Rule::Muon { rows: 6, columns: 8 } },
        Stretch { span: 88..100, rule: Rule::AdamW { decays: false } },
    ];
    let adamw = AdamWStep {
        learning_rate: 0.5,
        weight_decay: 0.5,
        beta_1: 0.9,
        beta_2: 0.95,
        epsilon: 1e-8,
        first_correction: 10.0,
        second_correction: 20.0,
        gradient_scale: 1.0,
    };
    let muon = MuonStep { learning_rate: 0.5, weight_decay: 0.5, momentum: 0.95, gradient_scale: 1.0 };
    let moved = on_any_threads(|device| {
        let mut p = device.upload(vec![1.0; 100]);
        let mut g = vec![0.0; 100];
        g[40..88].copy_from_slice(&normal_numbers(1, 48));
        let g = device.upload(g);
        let [mut m, mut v] = [(); 2].map(|()| Moments::zeros(device, 100, MomentFormat::F32));
        device.optimise(&stretches, p.at_mut(..), g.at(..), &mut m, &mut v, adamw, muon);
        device.read(p.at(..))
    });
    assert!(moved[..40].iter().all(|&p| p == 0.75), "decayed only");
    assert!(moved[40..88].iter().all(|&p| p != 0.75 && (p - 0.75).abs() < 1.0), "turned");
    assert!(moved[88..].iter().all(|&p| p == 1.0), "left alone");
}

#[test]
fn moments_in_bf16_are_rounded_once_a_step_and_nothing_else_changes() {
    let stretches = [
        Stretch { span: 0..40, rule: Rule::AdamW { decays: true } },
        Stretch { span: 40..88, rule: Rule::Muon { rows: 6, columns: 8 } },
    ];
    let adamw = AdamWStep {
        learning_rate: 0.1,
        weight_decay: 0.0,
        beta_1: 0.9,
        beta_2: 0.95,
        epsilon: 1e-8,
        first_correction: 10.0,
        second_correction: 20.0,
        gradient_scale: 1.0,
    };
    let muon = MuonStep { learning_rate: 0.1, weight_decay: 0.0, momentum: 0.95, gradient_scale: 1.0 };
    let run = |device: &Device, format| {
        let mut p = device.upload(vec![1.0; 88]);
        let g = device.upload(normal_numbers(1, 88));
        let [mut m, mut v] = [(); 2].map(|()| Moments::zeros(device, 88, format));
        device.optimise(&stretches, p.at_mut(..), g.at(..), &mut m, &mut v, adamw, muon);
        (device.read(p.at(..)), [m, v].map(|moments| moments.lend(device).into_owned()))
    };
    let (moved, [m, v]) = on_any_threads(|device| run(device, MomentFormat::Bf16));
    let device = Device::cpu(1).unwrap();
    let (expected, exact) = run(&device, MomentFormat::F32);
    assert_eq!(moved, expected, "the first step starts from the same zeros");
    for (rounded, exact) in [m, v].iter().zip(exact) {
        let again = Moments::upload(&device, exact, MomentFormat::Bf16);
        assert_eq!(*rounded, again.lend(&device).into_owned());
    }
}
