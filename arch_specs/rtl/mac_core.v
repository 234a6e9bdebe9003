// The reconfigurable MAC core (paper, Section III.A and Fig. 3b): three operators at 8, 4 and 2 bits.
//
// One cycle computes 8/b operations on words of b bits and adds them to one accumulator: x and w hold 8/b words, lowest
// first. Operands are registered; the accumulator has the sum of an operation two rising edges after it was given.
//
//   operation   0: typical (x * w), 1: multiplication-free, 2: binary-connect (see add_subtract.v for words of w)
//   precision   0: 8 bits, 1: 4 bits, 2: 2 bits
//   signed_x    words of x are two's complement; else they use all codes (inputs after a ReLU)
//   wide        the accumulator has LONG bits; else SHORT bits, and those above are 0
//   valid       there is an operation in this cycle
//   first       it begins a new sum
//
//   SATURATE    sums are clipped instead of wrapped, once in a cycle
//   ZERO_SKIP   a cycle with x = 0 adds nothing for any operator: registers keep their values
//   ISOLATE     operands of the parts that the operator does not use are held at 0
module mac_core #(
    parameter LONG = 20,
    parameter SHORT = 12,
    parameter SATURATE = 0,
    parameter ZERO_SKIP = 1,
    parameter ISOLATE = 1
) (
    input                 clk,
    input                 reset,
    input      [     1:0] operation,
    input      [     1:0] precision,
    input                 signed_x,
    input                 wide,
    input                 valid,
    input                 first,
    input      [     7:0] x,
    input      [     7:0] w,
    output reg [LONG-1:0] acc
);
    wire skip = (ZERO_SKIP != 0) & (x == 8'b0);
    wire load = valid & ~skip;

    reg run;    // add the addend to the accumulator
    reg start;  // begin at zero
    reg typical_r, binary_r, signed_r, wide_r;
    reg [1:0] precision_r;
    reg [7:0] x_r, w_r;

    always @(posedge clk) begin
        run <= load & ~reset;
        start <= valid & first & ~reset;
        if (load) begin
            typical_r <= operation == 2'd0;
            binary_r <= operation == 2'd2;
            precision_r <= precision;
            signed_r <= signed_x;
            wide_r <= wide;
            x_r <= x;
            w_r <= w;
        end
    end

    wire multiplies = typical_r | (ISOLATE == 0);
    wire adds = ~typical_r | (ISOLATE == 0);

    wire [15:0] products;
    wire signed [16:0] product_sum;
    baugh_wooley_array multiplier (
        .x(x_r & {8{multiplies}}),
        .w(w_r & {8{multiplies}}),
        .precision(precision_r),
        .signed_x(signed_r),
        .product(products)
    );
    lane_sum #(.FIELD(4)) product_lanes (
        .word(products),
        .sign({products[15], products[11], products[7], products[3]}),
        .precision(precision_r),
        .sum(product_sum)
    );

    wire signed [10:0] difference;
    wire carry;
    add_subtract adders (
        .x(x_r & {8{adds}}),
        .w(w_r & {8{adds}}),
        .binary(binary_r),
        .precision(precision_r),
        .signed_x(signed_r),
        .addend(difference),
        .carry(carry)
    );

    wire [LONG-1:0] sum;
    accumulator_adder #(
        .LONG(LONG), .SHORT(SHORT), .SATURATE(SATURATE)
    ) adder (
        .base(acc & {LONG{~start}}),
        .addend(typical_r ? product_sum : {{6{difference[10]}}, difference}),
        .carry_in(carry & ~typical_r),
        .wide(wide_r),
        .sum(sum)
    );

    always @(posedge clk)
        if (run) acc <= sum;
        else if (start) acc <= {LONG{1'b0}};
endmodule
