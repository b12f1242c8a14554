//! Several products that run together: those of a mixture's experts, which have as many rows as tokens have chosen them.
//! All are cut into blocks of about the same work, which threads take in turn, the largest first: an expert with many rows
//! is several threads' work, and one with few holds nobody up.

use super::{
    MatrixMut, MatrixRef, PANEL_COLUMNS, Start, Target, WORK_WORTH_THREADS, blocked, multiply,
    multiply_target, worth_blocking,
};
use crate::path::CpuPath;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One of several products.
#[derive(Debug)]
pub struct Product<'a> {
    /// A
    pub a: MatrixRef<'a>,
    /// B
    pub b: MatrixRef<'a>,
    /// C
    pub c: MatrixMut<'a>,
    /// C ← A·B, or C + A·B.
    pub start: Start,
}

/// Blocks that each thread takes, on average: fewer leave threads waiting at the end, more pack the same rows more often.
const BLOCKS_OF_A_THREAD: usize = 6;
/// Rows below which a block is rather cut by columns: B is packed again for every block of rows.
const ROWS_OF_A_BLOCK: usize = 192;

struct Block {
    product: usize,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
    work: usize,
}

/// Every product, on up to `threads` threads of the rayon pool that this is called in, with the bits of
/// [`multiply`](super::multiply).
///
/// # Panics
/// When the shapes of a product do not match.
pub fn multiply_all(threads: usize, products: Vec<Product>) {
    for Product { a, b, c, .. } in &products {
        assert_eq!((a.rows, b.columns, a.columns), (c.rows, c.columns, b.rows), "shapes of a product");
    }
    let total: usize = products.iter().map(work).sum();
    if threads <= 1 || total < WORK_WORTH_THREADS {
        products.into_iter().for_each(|Product { a, b, c, start }| multiply(a, b, c, start));
        return;
    }
    let limit = total.div_ceil(BLOCKS_OF_A_THREAD * threads).max(1);
    let mut blocks = Vec::new();
    for (index, product) in products.iter().enumerate() {
        let (rows, columns) = (product.a.rows, product.b.columns);
        let pieces = work(product).div_ceil(limit).max(1);
        let down = pieces.min(rows.div_ceil(ROWS_OF_A_BLOCK)).max(1);
        let row_step = rows.div_ceil(down).next_multiple_of(12);
        let column_step = columns.div_ceil(pieces.div_ceil(down)).next_multiple_of(PANEL_COLUMNS);
        for row in (0..rows).step_by(row_step.max(1)) {
            for column in (0..columns).step_by(column_step.max(1)) {
                let (rows, columns) =
                    (row..rows.min(row + row_step), column..columns.min(column + column_step));
                let work = rows.len() * columns.len() * product.a.columns;
                blocks.push(Block { product: index, rows, columns, work });
            }
        }
    }
    blocks.sort_by_key(|block| std::cmp::Reverse(block.work));
    let path = CpuPath::current();
    let targets: Vec<_> =
        products.into_iter().map(|Product { a, b, c, start }| (a, b, Target::new(c), start)).collect();
    let next = AtomicUsize::new(0);
    let run = || {
        while let Some(Block { product, rows, columns, .. }) =
            blocks.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let (a, b, c, start) = targets[*product];
            let left = a.part(rows.start, rows.len(), 0, a.columns);
            let right = b.part(0, b.rows, columns.start, columns.len());
            let target = c.part(rows.start, rows.len(), columns.start, columns.len());
            // SAFETY: every C is borrowed mutably for the whole call, and each block is taken once.
            unsafe {
                if worth_blocking(&left, &right) {
                    blocked::multiply(path, 1, left, right, target, start);
                } else {
                    multiply_target(path, left, right, target, start);
                }
            }
        }
    };
    rayon::scope(|scope| {
        for _ in 1..threads.min(blocks.len()) {
            scope.spawn(|_| run());
        }
        run();
    });
}

fn work(product: &Product) -> usize {
    product.a.rows.saturating_mul(product.b.columns).saturating_mul(product.a.columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::normal_numbers;

    #[test]
    fn many_products_have_the_bits_of_each() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        // experts with none, few and many rows
        let (n, k, rows) = (130, 70, [0, 900, 3, 0, 40, 257, 1]);
        let total: usize = rows.iter().sum();
        let (x, dy) = (normal_numbers(1, total * k), normal_numbers(2, total * n));
        let (weights, before) =
            (normal_numbers(3, rows.len() * n * k), normal_numbers(4, rows.len() * n * k));
        let run = |forward: bool, threads: Option<usize>| {
            let mut target = if forward { vec![7.0f32; total * n] } else { before.clone() };
            let (mut rest, mut first, mut products) = (&mut target[..], 0, Vec::new());
            for (expert, &rows) in rows.iter().enumerate() {
                let w = MatrixRef::new(&weights[expert * n * k..][..n * k], n, k);
                let x = MatrixRef::new(&x[first * k..][..rows * k], rows, k);
                let dy = MatrixRef::new(&dy[first * n..][..rows * n], rows, n);
                let (a, b, start) = match forward {
                    true => (x, w.transposed(), Start::Zero),
                    false => (dy.transposed(), x, Start::Continue),
                };
                let (c, others) = rest.split_at_mut(a.rows * b.columns);
                products.push(Product { a, b, c: MatrixMut::new(c, a.rows, b.columns), start });
                rest = others;
                first += rows;
            }
            match threads {
                Some(threads) => pool.install(|| multiply_all(threads, products)),
                None => products.into_iter().for_each(|p| multiply(p.a, p.b, p.c, p.start)),
            }
            target
        };
        for forward in [true, false] {
            let expected = run(forward, None);
            for threads in [1, 2, 3, 8] {
                assert!(run(forward, Some(threads)) == expected, "forward {forward}, {threads} threads");
            }
        }
    }
}
