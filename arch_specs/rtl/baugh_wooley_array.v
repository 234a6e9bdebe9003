// An 8 x 8 Baugh-Wooley array that splits along its diagonal into two 4-bit or four 2-bit multipliers (paper, Fig. 3c).
//
// Row i adds w * x[i] to a carry-save sum. Cells between different words are off, and no carry crosses from one product
// into the next. The product of lane k is in bits 2bk + 2b - 1 .. 2bk of `product`, for words of b bits.
//
//   precision   0: one product of 8 bits, 1: two of 4 bits, 2: four of 2 bits
//   signed_x    words of x are two's complement; else they use all codes (inputs after a ReLU). Words of w are signed.
module baugh_wooley_array (
    input  [ 7:0] x,
    input  [ 7:0] w,
    input  [ 1:0] precision,
    input         signed_x,
    output [15:0] product
);
    wire half = |precision;        // words have 4 or 2 bits
    wire quarter = precision[1];   // words have 2 bits

    // The highest bits of words: their partial products are negative and therefore inverted.
    wire [7:0] top = {1'b1, 1'b0, quarter, 1'b0, half, 1'b0, quarter, 1'b0};

    // Ones that correct the inversions, in columns 2b - 1 and b (signed x) or b - 1 (unsigned x) of each lane.
    wire s2 = quarter & signed_x;
    wire u2 = quarter & ~signed_x;
    wire s4 = half & ~quarter & signed_x;
    wire c3 = quarter | (half & ~signed_x);
    wire [15:0] correction = {1'b1, s2, u2, s4, c3, s2, u2, ~half & signed_x,
                              half | ~signed_x, s2, u2, s4, c3, s2, u2, 1'b0};

    // Columns into which no carry may come.
    wire [15:1] first_column = {3'b0, quarter, 3'b0, half, 3'b0, quarter, 3'b0};

    // Row i covers columns i to i + 7. Sums of row i enter row i + 1 in the same column, carries one column further.
    wire [15:0] sums    [0:8];
    wire [15:0] carries [0:8];
    assign sums[0] = correction;
    assign carries[0] = 16'b0;

    genvar i, j;
    generate
        for (i = 0; i < 8; i = i + 1) begin : row
            for (j = 0; j < 8; j = j + 1) begin : cells
                wire same = (i / 2 == j / 2) ? 1'b1 : (i / 4 == j / 4) ? ~quarter : ~half;
                wire inverted = (signed_x & top[i]) ^ top[j];
                wire carry;
                full_adder cell_adder (
                    .a(same & ((x[i] & w[j]) ^ inverted)),
                    .b(sums[i][i+j]),
                    .c(carries[i][i+j]),
                    .sum(sums[i+1][i+j]),
                    .carry(carry)
                );
                assign carries[i+1][i+j+1] = carry & ~first_column[i+j+1];
            end
            // Columns outside of this row pass.
            assign carries[i+1][i:0] = carries[i][i:0];
            if (i > 0) assign sums[i+1][i-1:0] = sums[i][i-1:0];
            assign sums[i+1][15:i+8] = sums[i][15:i+8];
            if (i < 7) assign carries[i+1][15:i+9] = carries[i][15:i+9];
        end
    endgenerate

    // The last row: carries ripple through the upper half.
    wire [15:8] ripple;
    assign ripple[8] = 1'b0;
    assign product[7:0] = sums[8][7:0];
    assign product[15] = sums[8][15] ^ carries[8][15] ^ ripple[15];
    generate
        for (j = 8; j < 15; j = j + 1) begin : last
            wire carry;
            full_adder ripple_adder (
                .a(sums[8][j]),
                .b(carries[8][j]),
                .c(ripple[j]),
                .sum(product[j]),
                .carry(carry)
            );
            assign ripple[j+1] = carry & ~first_column[j+1];
        end
    endgenerate
endmodule
