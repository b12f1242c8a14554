//! The program of a template with a check before everything whose cost one instruction does not bound.
//!
//! The engine parses the source. This rebuilds its tree with calls of our own around operators, calls, filters and what is
//! compared; they stand in the environment (`super::operators`) and charge the run's `Budget`. It also puts Python's
//! meaning in the place of the engine's where the two differ.

use minijinja::Value;
use minijinja::machinery::Span;
use minijinja::machinery::ast::{
    BinOp, BinOpKind, Call, CallArg, CallBlock, Compare, CompareOp, Const, Do, EmitExpr, Expr, Filter,
    FilterBlock, ForLoop, GetAttr, GetItem, IfCond, IfExpr, List, Macro, Map, Set, SetBlock, Spanned, Stmt,
    Template, Test, Tuple, UnaryOp, UnaryOpKind, WithBlock,
};

/// Names of our calls, which no template can spell.
pub(super) const ADD: &str = "+";
pub(super) const CONCATENATE: &str = "~";
pub(super) const MULTIPLY: &str = "*";
pub(super) const REMAINDER: &str = "%";
pub(super) const SLICE: &str = "[:]";
/// Passes a value on that an instruction reads without going into its elements.
pub(super) const LOOK_AT: &str = "?";
/// Passes a value on that a loop goes through.
pub(super) const ITERATE: &str = "for";
/// Passes a value on that is read if it is a text.
pub(super) const LOOK_AT_TEXT: &str = "?text";
/// Passes a value on that is read to its depth.
pub(super) const LOOK_THROUGH: &str = "??";
/// Passes a result on that was made.
pub(super) const MADE: &str = "!";

/// Deepest nesting of a template's statements and expressions together. A chain of operators counts one for each.
const DEEPEST_PROGRAM: usize = 1_000;

/// Filters and tests that do not read the elements of what they are given.
const SHALLOW: [&str; 22] = [
    "boolean",
    "callable",
    "count",
    "d",
    "default",
    "defined",
    "false",
    "first",
    "float",
    "integer",
    "iterable",
    "last",
    "length",
    "list",
    "items",
    "mapping",
    "none",
    "number",
    "sequence",
    "string",
    "true",
    "undefined",
];

type Built<T> = Result<T, String>;

/// The same program with checks.
///
/// # Errors
/// What is not part of chat templates, or nested too deep.
pub(super) fn guarded<'a>(program: &Stmt<'a>) -> Built<Stmt<'a>> {
    statement(program, DEEPEST_PROGRAM)
}

fn deeper(depth: usize, span: Span) -> Built<usize> {
    depth.checked_sub(1).ok_or_else(|| format!("line {}: the template is nested too deep", span.start_line))
}

fn statements<'a>(body: &[Stmt<'a>], depth: usize) -> Built<Vec<Stmt<'a>>> {
    body.iter().map(|inner| statement(inner, depth)).collect()
}

fn statement<'a>(stmt: &Stmt<'a>, depth: usize) -> Built<Stmt<'a>> {
    let inner = |body: &[Stmt<'a>], span| statements(body, deeper(depth, span)?);
    Ok(match stmt {
        Stmt::Template(node) => {
            let children = inner(&node.children, node.span())?;
            Stmt::Template(Spanned::new(Template { children }, node.span()))
        }
        Stmt::EmitExpr(node) => {
            let expr = expression(&node.expr, depth)?;
            Stmt::EmitExpr(Spanned::new(EmitExpr { expr }, node.span()))
        }
        // Through the formatter, which counts.
        Stmt::EmitRaw(node) => {
            let expr = constant(Value::from(node.raw), node.span());
            Stmt::EmitExpr(Spanned::new(EmitExpr { expr }, node.span()))
        }
        Stmt::ForLoop(node) => Stmt::ForLoop(Spanned::new(
            ForLoop {
                target: target(&node.target, depth)?,
                iter: applied(ITERATE, expression(&node.iter, depth)?),
                filter_expr: node.filter_expr.as_ref().map(|filter| expression(filter, depth)).transpose()?,
                recursive: node.recursive,
                body: inner(&node.body, node.span())?,
                else_body: inner(&node.else_body, node.span())?,
            },
            node.span(),
        )),
        Stmt::IfCond(node) => Stmt::IfCond(Spanned::new(
            IfCond {
                expr: expression(&node.expr, depth)?,
                true_body: inner(&node.true_body, node.span())?,
                false_body: inner(&node.false_body, node.span())?,
            },
            node.span(),
        )),
        Stmt::WithBlock(node) => {
            let pair = |(name, value): &(Expr<'a>, Expr<'a>)| {
                Ok((target(name, depth)?, expression(value, depth)?))
            };
            let assignments = node.assignments.iter().map(pair).collect::<Built<_>>()?;
            let body = inner(&node.body, node.span())?;
            Stmt::WithBlock(Spanned::new(WithBlock { assignments, body }, node.span()))
        }
        Stmt::Set(node) => {
            let mut expr = expression(&node.expr, depth)?;
            // What goes into a namespace, and so may come to stand in itself.
            if matches!(node.target, Expr::GetAttr(_)) {
                expr = applied(LOOK_THROUGH, expr);
            }
            Stmt::Set(Spanned::new(Set { target: target(&node.target, depth)?, expr }, node.span()))
        }
        Stmt::SetBlock(node) => Stmt::SetBlock(Spanned::new(
            SetBlock {
                target: target(&node.target, depth)?,
                filter: node.filter.as_ref().map(|filter| expression(filter, depth)).transpose()?,
                body: inner(&node.body, node.span())?,
            },
            node.span(),
        )),
        Stmt::FilterBlock(node) => Stmt::FilterBlock(Spanned::new(
            FilterBlock { filter: expression(&node.filter, depth)?, body: inner(&node.body, node.span())? },
            node.span(),
        )),
        Stmt::Macro(node) => Stmt::Macro(declaration(node, depth)?),
        Stmt::CallBlock(node) => Stmt::CallBlock(Spanned::new(
            CallBlock {
                call: call(&node.call, depth)?,
                macro_decl: declaration(&node.macro_decl, depth)?,
            },
            node.span(),
        )),
        Stmt::Do(node) => Stmt::Do(Spanned::new(Do { call: call(&node.call, depth)? }, node.span())),
        Stmt::Continue(node) => Stmt::Continue(Spanned::new(minijinja::machinery::ast::Continue, node.span())),
        Stmt::Break(node) => Stmt::Break(Spanned::new(minijinja::machinery::ast::Break, node.span())),
        // Blocks, other files, escapes for HTML.
        _ => return Err("the template has a statement that has no place in a chat template (`autoescape`, `block`, `extends`, `import` or `include`)".to_owned()),
    })
}

fn declaration<'a>(node: &Spanned<Macro<'a>>, depth: usize) -> Built<Spanned<Macro<'a>>> {
    let below = deeper(depth, node.span())?;
    let declared = Macro {
        name: node.name,
        args: node.args.iter().map(|name| target(name, depth)).collect::<Built<_>>()?,
        defaults: node.defaults.iter().map(|value| expression(value, depth)).collect::<Built<_>>()?,
        body: statements(&node.body, below)?,
    };
    Ok(Spanned::new(declared, node.span()))
}

/// What a value is assigned to: a name, several names, or an attribute of a namespace.
fn target<'a>(expr: &Expr<'a>, depth: usize) -> Built<Expr<'a>> {
    let depth = deeper(depth, expr.span())?;
    let items = |items: &[Expr<'a>]| items.iter().map(|item| target(item, depth)).collect::<Built<Vec<_>>>();
    Ok(match expr {
        Expr::List(node) => Expr::List(Spanned::new(List { items: items(&node.items)? }, node.span())),
        Expr::Tuple(node) => Expr::Tuple(Spanned::new(Tuple { items: items(&node.items)? }, node.span())),
        Expr::GetAttr(node) => Expr::GetAttr(Spanned::new(
            GetAttr { expr: expression(&node.expr, depth)?, name: node.name },
            node.span(),
        )),
        other => expression(other, depth)?,
    })
}

fn expression<'a>(expr: &Expr<'a>, depth: usize) -> Built<Expr<'a>> {
    let span = expr.span();
    let depth = deeper(depth, span)?;
    let inner = |expr: &Expr<'a>| expression(expr, depth);
    let optional = |expr: &Option<Expr<'a>>| expr.as_ref().map(inner).transpose();
    let all = |items: &[Expr<'a>]| items.iter().map(inner).collect::<Built<Vec<_>>>();
    Ok(match expr {
        Expr::Var(node) => Expr::Var(Spanned::new(minijinja::machinery::ast::Var { id: node.id }, span)),
        Expr::Const(node) => constant(node.value.clone(), span),
        Expr::Slice(node) => {
            let edge = |edge: &Option<Expr<'a>>| match edge {
                Some(edge) => inner(edge),
                None => Ok(constant(Value::from(()), span)),
            };
            let edges = [&node.start, &node.stop, &node.step].map(|place| edge(place).map(CallArg::Pos));
            let args = edges.into_iter().collect::<Built<_>>()?;
            Expr::Filter(Spanned::new(Filter { name: SLICE, expr: Some(inner(&node.expr)?), args }, span))
        }
        Expr::UnaryOp(node) => {
            let is_not = matches!(node.op, UnaryOpKind::Not);
            let op = if is_not { UnaryOpKind::Not } else { UnaryOpKind::Neg };
            Expr::UnaryOp(Spanned::new(UnaryOp { op, expr: inner(&node.expr)? }, span))
        }
        Expr::BinOp(node) => {
            let (left, right) = (inner(&node.left)?, inner(&node.right)?);
            let plain = |left, right| Expr::BinOp(Spanned::new(BinOp { op: node.op, left, right }, span));
            match node.op {
                BinOpKind::Add => operator(ADD, left, right),
                BinOpKind::Concat => operator(CONCATENATE, left, right),
                BinOpKind::Mul => operator(MULTIPLY, left, right),
                BinOpKind::Rem => operator(REMAINDER, left, right),
                BinOpKind::ScAnd | BinOpKind::ScOr => plain(left, right),
                _ => plain(applied(LOOK_THROUGH, left), applied(LOOK_THROUGH, right)),
            }
        }
        Expr::Compare(node) => {
            let looked = |expr: &Expr<'a>| -> Built<Expr<'a>> { Ok(applied(LOOK_THROUGH, inner(expr)?)) };
            let op = |op: &CompareOp<'a>| -> Built<CompareOp<'a>> {
                Ok(CompareOp { op: op.op, expr: looked(&op.expr)? })
            };
            let ops = node.ops.iter().map(op).collect::<Built<_>>()?;
            Expr::Compare(Spanned::new(Compare { expr: looked(&node.expr)?, ops }, span))
        }
        Expr::IfExpr(node) => Expr::IfExpr(Spanned::new(
            IfExpr {
                test_expr: inner(&node.test_expr)?,
                true_expr: inner(&node.true_expr)?,
                false_expr: optional(&node.false_expr)?,
            },
            span,
        )),
        Expr::Filter(node) => {
            let given = optional(&node.expr)?.map(|given| applied(look_for(node.name), given));
            let args = arguments(&node.args, depth)?;
            applied(MADE, Expr::Filter(Spanned::new(Filter { name: node.name, expr: given, args }, span)))
        }
        Expr::Test(node) => {
            let given = applied(look_for(node.name), inner(&node.expr)?);
            let args = arguments(&node.args, depth)?;
            Expr::Test(Spanned::new(Test { name: node.name, expr: given, args }, span))
        }
        Expr::GetAttr(node) => {
            Expr::GetAttr(Spanned::new(GetAttr { expr: inner(&node.expr)?, name: node.name }, span))
        }
        Expr::GetItem(node) => {
            // A text is counted through up to the character; a name is compared.
            let subscript = match &node.subscript_expr {
                Expr::Const(_) => inner(&node.subscript_expr)?,
                other => applied(LOOK_THROUGH, inner(other)?),
            };
            let item = GetItem { expr: applied_to_text(inner(&node.expr)?), subscript_expr: subscript };
            Expr::GetItem(Spanned::new(item, span))
        }
        Expr::Call(node) => applied(MADE, Expr::Call(call(node, depth)?)),
        Expr::List(node) => {
            applied(LOOK_THROUGH, Expr::List(Spanned::new(List { items: all(&node.items)? }, span)))
        }
        Expr::Tuple(node) => {
            applied(LOOK_THROUGH, Expr::Tuple(Spanned::new(Tuple { items: all(&node.items)? }, span)))
        }
        Expr::Map(node) => {
            let keys = node.keys.iter().map(|key| match key {
                Expr::Const(_) => inner(key),
                other => Ok(applied(LOOK_THROUGH, inner(other)?)),
            });
            let map = Map { keys: keys.collect::<Built<_>>()?, values: all(&node.values)? };
            applied(LOOK_THROUGH, Expr::Map(Spanned::new(map, span)))
        }
    })
}

fn call<'a>(node: &Spanned<Call<'a>>, depth: usize) -> Built<Spanned<Call<'a>>> {
    let depth = deeper(depth, node.span())?;
    let called = match &node.expr {
        Expr::Var(_) => expression(&node.expr, depth)?,
        // A method: its owner is read.
        Expr::GetAttr(method) => Expr::GetAttr(Spanned::new(
            GetAttr { expr: applied(LOOK_AT, expression(&method.expr, depth)?), name: method.name },
            method.span(),
        )),
        other => expression(other, depth)?,
    };
    Ok(Spanned::new(Call { expr: called, args: arguments(&node.args, depth)? }, node.span()))
}

fn arguments<'a>(args: &[CallArg<'a>], depth: usize) -> Built<Vec<CallArg<'a>>> {
    let looked = |expr: &Expr<'a>| match expr {
        Expr::Const(_) => expression(expr, depth),
        other => Ok(applied(LOOK_THROUGH, expression(other, depth)?)),
    };
    args.iter()
        .map(|arg| {
            Ok(match arg {
                CallArg::Pos(expr) => CallArg::Pos(looked(expr)?),
                CallArg::Kwarg(name, expr) => CallArg::Kwarg(name, looked(expr)?),
                CallArg::PosSplat(expr) => CallArg::PosSplat(looked(expr)?),
                CallArg::KwargSplat(expr) => CallArg::KwargSplat(looked(expr)?),
            })
        })
        .collect()
}

fn look_for(name: &str) -> &'static str {
    if SHALLOW.contains(&name) { LOOK_AT } else { LOOK_THROUGH }
}

fn constant<'a>(value: Value, span: Span) -> Expr<'a> {
    Expr::Const(Spanned::new(Const { value }, span))
}

fn applied<'a>(name: &'static str, expr: Expr<'a>) -> Expr<'a> {
    let span = expr.span();
    Expr::Filter(Spanned::new(Filter { name, expr: Some(expr), args: Vec::new() }, span))
}

/// A text is read up to the character that is asked for; lists and maps are not.
fn applied_to_text<'a>(expr: Expr<'a>) -> Expr<'a> {
    applied(LOOK_AT_TEXT, expr)
}

fn operator<'a>(name: &'static str, left: Expr<'a>, right: Expr<'a>) -> Expr<'a> {
    let span = left.span();
    Expr::Filter(Spanned::new(Filter { name, expr: Some(left), args: vec![CallArg::Pos(right)] }, span))
}
